"""The API guide's own curl steps work with only the base URL and the key put in."""

import json
import shutil
import subprocess

import pytest
from emulator_http import MEDIA, MODEL

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

UPLOAD = r"""
MIME_TYPE=image/jpeg
NUM_BYTES=$(wc -c < "$IMG_PATH")
DISPLAY_NAME=TEXT
tmp_header_file=upload-header.tmp
curl "${BASE_URL}/upload/v1beta/files?key=${GEMINI_API_KEY}" \
  -D upload-header.tmp \
  -H "X-Goog-Upload-Protocol: resumable" \
  -H "X-Goog-Upload-Command: start" \
  -H "X-Goog-Upload-Header-Content-Length: ${NUM_BYTES}" \
  -H "X-Goog-Upload-Header-Content-Type: ${MIME_TYPE}" \
  -H "Content-Type: application/json" \
  -d "{'file': {'display_name': '${DISPLAY_NAME}'}}" 2> /dev/null
upload_url=$(grep -i "x-goog-upload-url: " "${tmp_header_file}" | cut -d" " -f2 | tr -d "\r")
rm "${tmp_header_file}"
curl "${upload_url}" \
  -H "Content-Length: ${NUM_BYTES}" \
  -H "X-Goog-Upload-Offset: 0" \
  -H "X-Goog-Upload-Command: upload, finalize" \
  --data-binary "@${IMG_PATH}" 2> /dev/null > file_info.json
"""
GENERATE = r"""
curl "${BASE_URL}/v1beta/models/${MODEL}:generateContent" \
    -H "x-goog-api-key: $GEMINI_API_KEY" \
    -H 'Content-Type: application/json' \
    -X POST \
    -d '{
      "contents": [{
        "parts":[
          {"file_data":{"mime_type": "image/jpeg", "file_uri": "'$FILE_URI'"}},
          {"text": "Caption this image."}]
        }]
      }' 2> /dev/null > response.json
"""
THE_REST = r"""
curl -s "${BASE_URL}/v1beta/${NAME}?key=$GEMINI_API_KEY" > get.json
curl -s "${BASE_URL}/v1beta/files?key=$GEMINI_API_KEY" > list.json
curl -s --request "DELETE" "${BASE_URL}/v1beta/${NAME}?key=$GEMINI_API_KEY" > delete.json
"""


def test_guide_commands_upload_generate_get_list_and_delete(gemini_emulator, tmp_path):
    """Start, upload and finalize, generateContent in snake case, get, list and delete answer as the guide shows."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "NO_PROXY": "*",
        "BASE_URL": gemini_emulator.base_url,
        "GEMINI_API_KEY": "k",
        "IMG_PATH": str(MEDIA / "chelsea.jpg"),
        "MODEL": MODEL,
    }

    def run(script: str, **more: str) -> None:
        subprocess.run(["sh", "-ec", script], cwd=tmp_path, env={**environment, **more}, check=True, timeout=30)

    def saved(name: str):
        return json.loads((tmp_path / name).read_text())

    run(UPLOAD)
    file = saved("file_info.json")["file"]
    assert (file["displayName"], file["state"], file["mimeType"]) == ("TEXT", "ACTIVE", "image/jpeg")
    run(GENERATE, FILE_URI=file["uri"])
    text = saved("response.json")["candidates"][0]["content"]["parts"][0]["text"]
    assert "image/jpeg" in text
    assert "Caption this image." in text
    run(THE_REST, NAME=file["name"])
    assert saved("get.json") == file
    assert saved("list.json") == {"files": [file]}
    assert saved("delete.json") == {}


def test_curl_is_not_made_to_wait_for_a_large_body(gemini_emulator, tmp_path):
    """A body over 1 MiB, for which curl asks first, arrives whole and without curl's second of waiting."""
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(3 * 1024 * 1024))
    script = UPLOAD.replace("MIME_TYPE=image/jpeg", "MIME_TYPE=image/png").replace(
        '--data-binary "@${IMG_PATH}"', '-H "Expect: 100-continue" --expect100-timeout 8 --data-binary "@${IMG_PATH}"'
    )
    environment = {"PATH": "/usr/bin:/bin", "NO_PROXY": "*", "BASE_URL": gemini_emulator.base_url}
    environment |= {"GEMINI_API_KEY": "k", "IMG_PATH": str(big)}
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=environment, check=True, timeout=7)
    assert json.loads((tmp_path / "file_info.json").read_text())["file"]["sizeBytes"] == str(3 * 1024 * 1024)
