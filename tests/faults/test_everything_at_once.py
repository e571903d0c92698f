"""Every common trouble at once: two hundred images and videos still come out right."""

import hashlib
from pathlib import Path

from tests.faults.service import fault, service
from tests.support import generated
from tests.support.processes import by_key, run

ITEMS = 200
FAULTS = (
    fault("503", route=["generate", "upload_start", "file_get"], rate=0.08),
    fault("500", route=["generate", "upload_start", "file_get"], rate=0.03),
    fault("reset_before", route=["generate", "upload_start", "file_get"], rate=0.025),
    fault("reset_after", route=["generate", "upload_start", "file_get"], rate=0.025),
    fault("502_html", route=["generate", "upload_start", "file_get"], rate=0.03),
    fault("truncated_json", route=["generate", "file_get"], rate=0.03, framing="close"),
    fault("cut_upload", rate=0.08),
    fault("lost_finalize", rate=0.05),
    fault("vanish", rate=0.03, attempt=1),
)


def test_two_hundred_media_against_everything(tmp_path: Path) -> None:
    """200 right lines, exit 0; every kind of fault has struck, and no answer is about other bytes than its line."""
    folder = generated.folder(tmp_path / "media", ITEMS)
    expected = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.*")
    }
    with service(*FAULTS, plan='seed = 7\n[processing_seconds]\n"video/*" = 0.5') as server:
        ended = run(folder, tmp_path / "run", "--via", "files", base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        ledger = server.ledger()
    struck = ledger["faults"]
    assert len(struck) == len(FAULTS), struck
    assert ledger["calls"]["generate"]["200"] >= ITEMS
    found = by_key(tmp_path / "run")
    assert len(found) == ITEMS
    for key, line in found.items():
        assert (line["status"], line["error"]) == ("succeeded", None)
        assert line["media"][0]["sha256"] == expected[key]
        assert expected[key] in line["text"]
    # answers that were lost on their way were paid, and no other was paid twice
    assert ledger["paid_answers"] <= ITEMS + struck["reset_after"] + struck["truncated_json"]
