"""What we are measured against: an aiohttp loop that sends the same requests and does nothing else.

``python -m tests.benchmarks.bare_loop URL FOLDER --via files|inline --concurrency 64`` prints items a second and CPU.
No hashing, no checks, no retries, nothing written down: a crash loses everything.
"""

import argparse
import asyncio
import base64
import json
import mimetypes
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

KEY_TEXT = "AIza-a-test-key-that-opens-nothing-0000"
KEY = {"x-goog-api-key": KEY_TEXT}
MODEL = "gemini-3.8-flash"
PROMPT = "Describe this media."
CHUNK_BYTES = 8 * 1024 * 1024


async def upload(session: aiohttp.ClientSession, url: str, path: str, mime_type: str) -> dict[str, str]:
    """Start, chunks, finalize; the File."""
    size = os.path.getsize(path)
    headers = {
        **KEY,
        "X-Goog-Upload-Protocol": "resumable",
        "X-Goog-Upload-Command": "start",
        "X-Goog-Upload-Header-Content-Length": str(size),
        "X-Goog-Upload-Header-Content-Type": mime_type,
    }
    metadata = {"file": {"displayName": os.path.basename(path)}}
    async with session.post(f"{url}/upload/v1beta/files", json=metadata, headers=headers) as started:
        session_url = started.headers["X-Goog-Upload-URL"]
    with open(path, "rb") as file:
        offset = 0
        while True:
            chunk = file.read(CHUNK_BYTES)
            last = offset + len(chunk) >= size
            command = "upload, finalize" if last else "upload"
            headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset)}
            async with session.post(session_url, data=chunk, headers=headers) as ended:
                body = await ended.read()
            offset += len(chunk)
            if last:
                return dict(json.loads(body)["file"])


async def ask(session: aiohttp.ClientSession, url: str, part: dict[str, object]) -> str:
    """One generate call."""
    body = {"contents": [{"role": "user", "parts": [part, {"text": PROMPT}]}]}
    address = f"{url}/v1beta/models/{MODEL}:generateContent"
    async with session.post(address, json=body, headers=KEY) as answered:
        answer = await answered.json()
    return str(answer["candidates"][0]["content"]["parts"][0]["text"])


async def worker(session: aiohttp.ClientSession, url: str, paths: Iterator[str], *, via: str, ask_too: bool) -> int:
    """Take paths until there are none."""
    done = 0
    for path in paths:
        mime_type = mimetypes.guess_type(path)[0] or "image/jpeg"
        if via == "files":
            file = await upload(session, url, path, mime_type)
            while file.get("state") == "PROCESSING":
                await asyncio.sleep(1)
                async with session.get(f"{url}/v1beta/{file['name']}", headers=KEY) as told:
                    file = await told.json()
            part: dict[str, object] = {"fileData": {"fileUri": file["uri"], "mimeType": mime_type}}
        else:
            data = base64.b64encode(Path(path).read_bytes()).decode()
            part = {"inlineData": {"mimeType": mime_type, "data": data}}
        if ask_too:
            await ask(session, url, part)
        done += 1
    return done


def paths_of(folder: Path) -> list[str]:
    """The media of a folder, in order."""
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


async def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--via", default="files")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--upload-only", action="store_true")
    given = parser.parse_args()
    paths = iter(paths_of(given.folder))
    began = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        workers = [
            worker(session, given.url, paths, via=given.via, ask_too=not given.upload_only)
            for _ in range(given.concurrency)
        ]
        items = sum(await asyncio.gather(*workers))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.perf_counter() - began
    print(json.dumps({"items": items, "seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    if os.environ.get("BENCHMARK_UVLOOP"):
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
