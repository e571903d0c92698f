"""Who may use how much of the project's file storage."""

from pipeline.records import Content
from pipeline.retention.budget import PUT_AT_ONCE, Granted, LookBack, MakeRoom, StorageBudget, Wait
from tests.support.builders import NOW, remote


def content(name: str) -> Content:
    """A content known by one letter."""
    return Content(name * 64, "image/jpeg")


A, B, C = content("a"), content("b"), content("c")


def test_an_item_reserves_all_its_bytes_or_none() -> None:
    """A claim that does not fit leaves the budget as it was."""
    budget = StorageBudget(10)
    assert isinstance(budget.claim({A: 6}), Granted)
    assert isinstance(budget.claim({B: 3, C: 3}), Wait)
    assert budget.used_bytes == 6


def test_idle_files_make_room_oldest_use_first() -> None:
    """Files that nobody needs are given up, least recently used first, and no more of them than needed."""
    budget = StorageBudget(10)
    budget.stored(A, remote("files/a", size_bytes=4), NOW)
    budget.stored(B, remote("files/b", size_bytes=4), NOW)
    budget.claim({A: 4})
    budget.release([A], NOW)  # now b is the one used longest ago
    decision = budget.claim({C: 5})
    assert isinstance(decision, MakeRoom)
    assert [file.name for file in decision.victims] == ["files/b"]
    budget.dropped("files/b")
    assert isinstance(budget.claim({C: 5}), Granted)
    assert budget.used_bytes == 9


def test_a_needed_file_is_never_given_up() -> None:
    """What an unfinished item needs stays, though another item must wait."""
    budget = StorageBudget(10)
    budget.claim({A: 8})
    budget.stored(A, remote("files/a", size_bytes=8), NOW)
    assert isinstance(budget.claim({B: 8}), Wait)
    assert [f.name for f in budget.release([A], NOW)] == ["files/a"]
    assert isinstance(budget.claim({B: 8}), MakeRoom)


def test_a_refusal_teaches_the_capacity_and_a_success_raises_it() -> None:
    """When the service says full, we plan with what we store, and more again when an upload succeeds."""
    budget = StorageBudget(1000)
    budget.claim({A: 4})
    budget.stored(A, remote("files/a", size_bytes=4), NOW)
    budget.claim({B: 4})
    budget.release([B], NOW)
    assert budget.refused() is True
    assert budget.capacity_bytes == 4
    assert isinstance(budget.claim({B: 4}), Wait)
    budget.stored(C, remote("files/c", size_bytes=6), NOW)
    assert budget.capacity_bytes == 10


def test_holding_nothing_only_the_service_says_no() -> None:
    """With nothing held a claim is granted whatever was learnt, and a refusal then is the end."""
    budget = StorageBudget(1000)
    budget.capacity_bytes = 0
    assert isinstance(budget.claim({A: 4}), Granted)
    budget.release([A], NOW)
    assert budget.refused() is False


def test_an_expired_file_is_not_known_and_makes_room() -> None:
    """A file with less than an hour left is not planned with; idle, it is given up like any other."""
    budget = StorageBudget(10)
    budget.stored(A, remote("files/a", size_bytes=4, life_seconds=3599), NOW)
    assert budget.known(A, NOW) is None
    assert isinstance(budget.claim({B: 8}), MakeRoom)
    budget.dropped("files/a")
    assert budget.used_bytes == 0


def test_a_vanished_file_that_is_needed_keeps_its_reservation() -> None:
    """Whoever needs the content uploads it again into the same reservation."""
    budget = StorageBudget(10)
    budget.claim({A: 4})
    budget.stored(A, remote("files/a", size_bytes=4), NOW)
    budget.dropped("files/a")
    assert budget.known(A, NOW) is None
    assert budget.used_bytes == 4
    budget.release([A], NOW)
    assert budget.used_bytes == 0


def crowded(count: int, **options: int) -> StorageBudget:
    """A budget of ``count`` idle files of one byte, ``files/0`` the one used longest ago."""
    budget = StorageBudget(count, **options)
    for number in range(count):
        budget.stored(Content(f"{number:064x}", "image/jpeg"), remote(f"files/{number}", size_bytes=1), NOW)
    return budget


def test_idle_files_used_longest_ago_are_put_out_of_mind_and_still_count() -> None:
    """A good many at once; one of them that is needed again is recalled, and neither counts twice."""
    budget = crowded(PUT_AT_ONCE + 9, most_idle=10)
    assert not budget.put_out_of_mind()
    budget.stored(A, remote("files/a", size_bytes=1), NOW)
    assert [file.name for file, _ in budget.put_out_of_mind()] == [f"files/{number}" for number in range(PUT_AT_ONCE)]
    first, last = (Content(f"{number:064x}", "image/jpeg") for number in (0, PUT_AT_ONCE + 8))
    assert not budget.unsure([last])
    assert budget.unsure([first, last])
    before = budget.used_bytes, budget.stored_bytes
    budget.recalled(first, remote("files/0", size_bytes=1), NOW)
    assert isinstance(budget.claim({first: 1}), Granted)
    assert (budget.used_bytes, budget.stored_bytes) == before
    assert budget.known(first, NOW)


def test_a_needed_file_is_never_put_out_of_mind() -> None:
    """However many there are."""
    budget = StorageBudget(10_000, most_idle=0)
    for number in range(PUT_AT_ONCE + 1):
        content = Content(f"{number:064x}", "image/jpeg")
        budget.claim({content: 1})
        budget.stored(content, remote(f"files/{number}", size_bytes=1), NOW)
    assert not budget.put_out_of_mind()
    budget.release((Content(f"{number:064x}", "image/jpeg") for number in range(PUT_AT_ONCE)), NOW)
    assert len(budget.put_out_of_mind()) == PUT_AT_ONCE
    assert budget.holds(Content(f"{PUT_AT_ONCE:064x}", "image/jpeg"))


def test_files_out_of_mind_make_room_first() -> None:
    """Their uses are the oldest; where there turn out to be none, those kept in mind have their turn."""
    budget = crowded(PUT_AT_ONCE + 1, most_idle=1)
    budget.put_out_of_mind()
    assert budget.claim({A: 2}) == LookBack(2)
    oldest = remote("files/0", size_bytes=1)
    budget.recalled(Content(f"{0:064x}", "image/jpeg"), oldest, NOW)
    assert budget.withdraw(oldest)
    budget.dropped("files/0")
    assert budget.claim({A: 2}) == LookBack(1)
    budget.nothing_out_of_mind()
    assert budget.used_bytes == budget.stored_bytes == 1
    assert isinstance(budget.claim({A: PUT_AT_ONCE + 1}), MakeRoom)
