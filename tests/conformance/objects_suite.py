"""What every object store holds. One is done when the suite runs on it unchanged.

A class of tests derives from `ObjectsSuite` and gives a fixture `objects`: a new, empty store for each test.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from zotctl.errors import Changed, DoneUnanswered, Expired, IoFailed, NotFound, StorageError
from zotctl.storage.bucket.objects.seam import Object, Objects, PresignedDelete, info_of
from zotctl.storage.driver import Buffer

PART = 5 << 20
BODY = bytes(range(251)) * 9_000
"""2 MB in which each place can be told from its neighbours."""
ODD = [
    "a b",
    "é✓",
    "1+1=2",
    "100%25",
    "a&b<c>",
    "what?",
    "#1",
    "~tilde",
    "a:b",
    "it's",
    "semi;colon",
    "x" * 255,
    "@(!)*,$",
]


def execute(objects: Objects, presigned: PresignedDelete) -> None:
    """Done, though it may be done once more where requests get lost."""
    with suppress(DoneUnanswered):
        objects.execute(presigned)


def get(objects: Objects, key: str) -> bytes:
    got = objects.get(key)
    assert got is not None
    return got[1]


def keys_of(rows: object) -> list[str]:
    assert not isinstance(rows, Object)
    return [row.key for row in rows]  # type: ignore[attr-defined]


def at_once(threads: int, call: Callable[[int], object]) -> list[object]:
    """What each of many threads got, which began together; an error is a result."""
    gate = threading.Barrier(threads)

    def one(number: int) -> object:
        gate.wait()
        try:
            return call(number)
        except StorageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))


class ObjectsSuite:
    strict = True
    """Refuses what only some servers refuse: `a` beside `a/b`, small parts, bytes of another SHA-256."""
    many = 2_500

    def later(self, seconds: float) -> None:
        """Let the server's clock go on."""
        time.sleep(seconds)

    # Reading

    def test_what_is_not_there_is_not_found(self, objects: Objects) -> None:
        objects.put("dir/file", b"x")
        for key in ("none", "none/below", "dir/file/below", "dir", "dir/fil"):
            for call in (objects.head, objects.get, objects.open):
                with pytest.raises(NotFound):
                    call(key)
        with pytest.raises(NotFound):
            objects.get("none", unless='"etag"')

    def test_what_was_put_is_told(self, objects: Objects) -> None:
        etag = objects.put("file", b"12345", metadata={"offset": "5", "state": "a/b c=="})
        found = objects.head("file")
        assert (found.key, found.size, found.etag) == ("file", 5, etag)
        assert found.metadata == {"offset": "5", "state": "a/b c=="}
        got = objects.get("file")
        assert got is not None and got[1] == b"12345"
        assert got[0]._replace(age=0) == found._replace(age=0)

    def test_times_are_the_servers(self, objects: Objects) -> None:
        objects.put("file", b"")
        found = objects.head("file")
        # The Date of a reply may be a second old: servers renew it once a second.
        assert -1 <= found.age <= 30
        assert abs(objects.date() - found.modified) <= 30
        before = objects.date()
        self.later(2)
        assert objects.head("file").age >= found.age + 1
        assert objects.head("file").modified == found.modified
        assert objects.date() > before

    def test_an_object_that_is_known_already_isnt_sent(self, objects: Objects) -> None:
        etag = objects.put("file", b"one")
        assert objects.get("file", unless=etag) is None
        other = objects.put("file", b"two")
        got = objects.get("file", unless=etag)
        assert got is not None and (got[0].etag, got[1]) == (other, b"two")

    def test_i8_bytes_come_back_identical(self, objects: Objects) -> None:
        kinds: dict[str, Buffer] = {"bytes": BODY, "array": bytearray(BODY), "view": memoryview(BODY)[100:70_000]}
        for name, body in kinds.items():
            objects.put(name, body)
            assert get(objects, name) == body
        objects.put("empty", b"")
        assert get(objects, "empty") == b"" and objects.head("empty").size == 0

    def test_reading_by_pieces_in_order(self, objects: Objects) -> None:
        objects.put("file", BODY)
        buffer, whole, at = bytearray(70_001), b"", 0
        with objects.open("file") as reader:
            assert reader.size == len(BODY)
            reader.once()
            while count := reader.read_into(at, memoryview(buffer)):
                whole += buffer[:count]
                at += count
        assert whole == BODY

    def test_reading_anywhere(self, objects: Objects) -> None:
        objects.put("file", BODY)
        size = len(BODY)
        with objects.open("file") as reader:
            for at, count in [
                (10, 20),
                (0, 5),
                (1_500_000, 99),
                (1_500_099, 7),
                (3, 4),
                (size - 5, 100),
                (size - 1, 1),
            ]:
                assert reader.read_at(at, count) == BODY[at : at + count]
            assert reader.read_at(size, 1) == reader.read_at(size + 1000, 5) == b""
            assert reader.read_at(0, size + 5) == BODY
            assert reader.read_into(5, memoryview(bytearray())) == 0

    def test_a_reader_of_nothing(self, objects: Objects) -> None:
        objects.put("file", b"")
        with objects.open("file") as reader:
            assert reader.size == 0
            assert reader.read_at(0, 10) == b""
            assert reader.fileno() is None and reader.labels() == {}

    def test_a_reader_may_be_closed_early_and_twice(self, objects: Objects) -> None:
        objects.put("file", BODY)
        for count in (0, 100):
            reader = objects.open("file")
            assert reader.read_at(0, count) == BODY[:count]
            reader.close()
            reader.close()
        assert get(objects, "file") == BODY

    def test_info_means_these_bytes_under_this_key(self, objects: Objects) -> None:
        objects.put("file", b"one")
        with objects.open("file") as reader:
            assert reader.info() == info_of(objects.head("file"))
            assert reader.info().is_file and reader.info().size == 3
            objects.put("file", b"two")
            assert reader.info().generation != info_of(objects.head("file")).generation

    def test_a_reader_never_mixes_two_objects(self, objects: Objects) -> None:
        other = bytes(reversed(BODY))
        objects.put("file", BODY)
        with objects.open("file") as reader:
            assert reader.read_at(0, 10) == BODY[:10]
            objects.put("file", other)
            for at in (10, 1_999_000, 0):
                with suppress(Changed):
                    assert reader.read_at(at, 1000) == BODY[at : at + 1000]

    def test_a_reader_of_what_was_deleted(self, objects: Objects) -> None:
        objects.put("file", BODY)
        with objects.open("file") as reader:
            objects.delete("file")
            with suppress(NotFound):
                assert reader.read_at(2_000_000, 1000) == BODY[2_000_000:2_001_000]

    # Writing

    def test_put_replaces_all_of_it(self, objects: Objects) -> None:
        first = objects.put("file", b"one", metadata={"a": "b"})
        second = objects.put("file", b"two!")
        assert first != second
        found = objects.head("file")
        assert (found.size, found.etag, dict(found.metadata)) == (4, second, {})

    def test_create_never_replaces(self, objects: Objects) -> None:
        etag = objects.put("file", b"mine", absent=True)
        for body in (b"other", b"mine"):
            with pytest.raises(Changed):
                objects.put("file", body, absent=True)
        assert objects.head("file").etag == etag
        objects.delete("file")
        objects.put("file", b"again", absent=True)

    def test_swap_needs_the_etag_that_is_there(self, objects: Objects) -> None:
        one = objects.put("file", b"one")
        two = objects.put("file", b"two", match=one)
        for stale in (one, '"0123456789abcdef0123456789abcdef"'):
            with pytest.raises(Changed):
                objects.put("file", b"three", match=stale)
        assert get(objects, "file") == b"two"
        with pytest.raises(Changed):
            objects.put("none", b"x", match=two)
        with pytest.raises(NotFound):
            objects.head("none")

    def test_one_of_many_creates(self, objects: Objects) -> None:
        results = at_once(16, lambda number: objects.put("file", f"{number}".encode(), absent=True))
        won = [result for result in results if isinstance(result, str)]
        assert len(won) == 1 and objects.head("file").etag == won[0]
        assert all(isinstance(result, str | Changed) for result in results)

    def test_no_swap_is_lost(self, objects: Objects) -> None:
        objects.put("counter", b"0")

        def add(_: int) -> None:
            for _ in range(5):
                while True:
                    got = objects.get("counter")
                    assert got is not None
                    try:
                        objects.put("counter", str(int(got[1]) + 1).encode(), match=got[0].etag)
                        break
                    except Changed:
                        continue

        assert at_once(8, add) == [None] * 8
        assert get(objects, "counter") == b"40"

    def test_i2_other_bytes_than_were_said_are_refused(self, objects: Objects) -> None:
        sha256 = hashlib.sha256(b"right").hexdigest()
        objects.put("right", b"right", sha256=sha256)
        if not self.strict:
            return
        with pytest.raises(IoFailed):
            objects.put("wrong", b"wrong", sha256=sha256)
        with pytest.raises(NotFound):
            objects.head("wrong")

    def test_an_object_lies_not_below_another(self, objects: Objects) -> None:
        if not self.strict:
            pytest.skip("this server takes it")
        objects.put("file", b"x")
        with pytest.raises(StorageError):
            objects.put("file/below", b"y")
        assert get(objects, "file") == b"x"

    def test_delete(self, objects: Objects) -> None:
        objects.put("dir/file", b"x")
        objects.put("dir/other", b"y")
        objects.delete("dir/file")
        objects.delete("dir/file")
        objects.delete("none/at/all")
        with pytest.raises(NotFound):
            objects.head("dir/file")
        assert keys_of(objects.list("")) == ["dir/other"]

    def test_odd_keys_are_keys(self, objects: Objects) -> None:
        for name in ODD:
            objects.put(f"odd/{name}", name.encode())
        assert keys_of(objects.list("odd/")) == sorted((f"odd/{name}" for name in ODD), key=str.encode)
        assert [name for name, _ in objects.names("odd")] == sorted(ODD, key=str.encode)
        for name in ODD:
            assert get(objects, f"odd/{name}") == name.encode()
            objects.copy(f"odd/{name}", f"copied/{name}")
            assert get(objects, f"copied/{name}") == name.encode()
        execute(objects, objects.sign_deletes([f"odd/{name}" for name in ODD], 30))
        for name in ODD:
            execute(objects, objects.sign_deletes([f"copied/{name}"], 30))
        assert keys_of(objects.list("")) == []

    # Lists

    def test_a_list_is_of_a_prefix_and_in_order(self, objects: Objects) -> None:
        for key in ("b", "a/2", "a/10", "a.txt", "ab/1", "é"):
            objects.put(key, key.encode())
        assert keys_of(objects.list("")) == ["a.txt", "a/10", "a/2", "ab/1", "b", "é"]
        assert keys_of(objects.list("a")) == ["a.txt", "a/10", "a/2", "ab/1"]
        assert keys_of(objects.list("a/")) == ["a/10", "a/2"]
        assert keys_of(objects.list("a/1")) == ["a/10"]
        assert keys_of(objects.list("none/")) == []
        assert keys_of(objects.list("", after="a/10")) == ["a/2", "ab/1", "b", "é"]
        assert keys_of(objects.list("a/", after="a/1")) == ["a/10", "a/2"]
        assert keys_of(objects.list("", after="é")) == []
        for row in objects.list(""):
            found = objects.head(row.key)
            assert (row.size, row.etag, int(row.modified)) == (found.size, found.etag, int(found.modified))

    def test_a_list_of_many_pages(self, objects: Objects) -> None:
        wanted = sorted(f"many/{number % 3}/{number:05}" for number in range(self.many))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: objects.put(key, b""), wanted))
        assert keys_of(objects.list("many/")) == wanted
        assert keys_of(objects.list("", after=wanted[100])) == wanted[101:]
        assert list(objects.names("many")) == [("0", True), ("1", True), ("2", True)]
        assert [name for name, _ in objects.names("many/1")] == [
            key.rpartition("/")[2] for key in wanted if "/1/" in key
        ]
        for start in range(0, self.many, 1000):
            execute(objects, objects.sign_deletes(wanted[start : start + 1000], 60))
        assert keys_of(objects.list("")) == []

    def test_names_in_a_directory(self, objects: Objects) -> None:
        for key in ("one", "dir/a", "dir/b/c", "dir/b/d", "dir.txt", "dirs/x"):
            objects.put(key, b"")
        assert list(objects.names("")) == [("dir.txt", False), ("dir", True), ("dirs", True), ("one", False)]
        assert list(objects.names("dir")) == [("a", False), ("b", True)]
        assert list(objects.names("dir/b")) == [("c", False), ("d", False)]
        assert list(objects.names("", after="dir.txt")) == [("dir", True), ("dirs", True), ("one", False)]
        assert list(objects.names("", after="dir/")) == [("dirs", True), ("one", False)]
        assert list(objects.names("dir", after="a")) == [("b", True)]
        assert list(objects.names("dir", after="b/")) == list(objects.names("", after="one")) == []
        assert list(objects.names("none")) == list(objects.names("one")) == []

    def test_names_after_one_that_sorts_behind_the_prefix_of_the_store(self, objects: Objects) -> None:
        objects.put("zy", b"")
        objects.put("zz", b"")
        assert list(objects.names("", after="zy")) == [("zz", False)]

    # Copies and parts

    def test_a_copy_is_told_with_its_sha256_where_there_is_one(self, objects: Objects) -> None:
        objects.put("source", BODY, metadata={"a": "b"})
        objects.put("target/file", b"old")
        found = objects.copy("source", "target/file")
        assert (found.key, found.size) == ("target/file", len(BODY))
        assert found.etag == objects.head("target/file").etag
        wanted = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
        assert found.metadata in ({"sha256": wanted}, {})
        assert dict(objects.head("target/file").metadata) == {}
        objects.delete("source")
        assert get(objects, "target/file") == BODY
        with pytest.raises(NotFound):
            objects.copy("source", "other")

    def test_an_object_of_parts(self, objects: Objects) -> None:
        parts = [bytes([number]) * PART for number in range(2)] + [b"end"]
        upload = objects.start_parts("big")
        etags = [objects.put_part("big", upload, number, memoryview(part)) for number, part in enumerate(parts, 1)]
        with pytest.raises(NotFound):
            objects.head("big")
        assert keys_of(objects.list("")) == []
        etag = objects.complete_parts("big", upload, etags)
        found = objects.head("big")
        assert (found.size, found.etag) == (2 * PART + 3, etag)
        with objects.open("big") as reader:
            assert reader.read_at(PART - 1, 2) == b"\0\1"
            assert reader.read_at(0, found.size) == b"".join(parts)
        copy = objects.copy("big", "copy")
        assert copy.size == found.size
        with objects.open("copy") as reader:
            assert reader.read_at(2 * PART - 1, 9) == b"\1end"

    def test_a_part_sent_again_counts_once_and_parts_come_in_any_order(self, objects: Objects) -> None:
        upload = objects.start_parts("big")
        last = objects.put_part("big", upload, 2, b"two")
        objects.put_part("big", upload, 1, b"x" * PART)
        first = objects.put_part("big", upload, 1, b"1" * PART)
        objects.complete_parts("big", upload, [first, last])
        with objects.open("big") as reader:
            assert reader.read_at(PART - 2, 9) == b"11two"

    def test_one_part_may_be_small_and_replaces_what_was_there(self, objects: Objects) -> None:
        objects.put("file", b"old", metadata={"a": "b"})
        upload = objects.start_parts("file")
        objects.complete_parts("file", upload, [objects.put_part("file", upload, 1, b"new")])
        assert get(objects, "file") == b"new"
        assert dict(objects.head("file").metadata) == {}

    def test_an_upload_that_was_ended(self, objects: Objects) -> None:
        for end in ("abort", "complete"):
            upload = objects.start_parts("file")
            etag = objects.put_part("file", upload, 1, b"x")
            if end == "abort":
                objects.abort_parts("file", upload)
            else:
                objects.complete_parts("file", upload, [etag])
            with pytest.raises(NotFound):
                objects.put_part("file", upload, 2, b"y")
            objects.abort_parts("file", upload)
        upload = objects.start_parts("other")
        etag = objects.put_part("other", upload, 1, b"x")
        objects.abort_parts("other", upload)
        with pytest.raises(NotFound):
            objects.complete_parts("other", upload, [etag])
        with pytest.raises(NotFound):
            objects.head("other")

    def test_parts_that_were_not_sent_make_no_object(self, objects: Objects) -> None:
        upload = objects.start_parts("file")
        etag = objects.put_part("file", upload, 1, b"x")
        for etags in ([etag, etag], ['"00000000000000000000000000000000"']):
            with pytest.raises(StorageError):
                objects.complete_parts("file", upload, etags)
        with pytest.raises(NotFound):
            objects.head("file")
        objects.complete_parts("file", upload, [etag])

    def test_small_parts_before_the_last_are_refused(self, objects: Objects) -> None:
        if not self.strict:
            pytest.skip("this server takes them")
        upload = objects.start_parts("file")
        etags = [objects.put_part("file", upload, number, b"small") for number in (1, 2)]
        with pytest.raises(StorageError):
            objects.complete_parts("file", upload, etags)
        objects.abort_parts("file", upload)

    # Presigned deletes

    @pytest.mark.parametrize("count", [1, 2, 20])
    def test_a_presigned_delete_deletes_all_of_its_keys(self, objects: Objects, count: int) -> None:
        doomed = [f"doomed/{number}" for number in range(count)]
        for key in [*doomed, "kept"]:
            objects.put(key, b"x")
        presigned = objects.sign_deletes(doomed, 30)
        assert presigned.keys == tuple(doomed)
        assert len(keys_of(objects.list(""))) == count + 1
        execute(objects, presigned)
        assert keys_of(objects.list("")) == ["kept"]
        execute(objects, presigned)

    @pytest.mark.parametrize("keys", [["none"], ["none", "file", "other/none"]])
    def test_a_key_that_isnt_there_is_done(self, objects: Objects, keys: list[str]) -> None:
        objects.put("file", b"x")
        execute(objects, objects.sign_deletes(keys, 30))

    def test_a_presigned_delete_expires_by_the_servers_clock(self, objects: Objects) -> None:
        for key in ("one", "two", "three"):
            objects.put(key, b"x")
        single, several = objects.sign_deletes(["one"], 1), objects.sign_deletes(["two", "three"], 1)
        self.later(4)
        for presigned in (single, several):
            with pytest.raises(Expired):
                objects.execute(presigned)
        assert keys_of(objects.list("")) == ["one", "three", "two"]
