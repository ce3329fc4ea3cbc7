"""The key file: what is in it survives, who may read it, and that nothing of it is ever said."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codes import CodeKeys, KeyRing, Signed
from gateway.keyfile import KeyFault, KeyFile, parse, serialised

_secret = st.binary(min_size=32, max_size=32)


def test_a_new_file_is_private_and_reads_back(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    keys = file.create()
    assert file.load() == keys
    assert (keys.active, set(keys.keys)) == (1, {1})
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.path.parent.iterdir()] == ["codes.toml"]


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    keys = file.create()
    with pytest.raises(KeyFault, match="exists already"):
        file.create()
    assert file.load() == keys


def test_keys_rotate_and_ids_are_never_used_twice(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    old = file.create()
    (code,) = KeyRing(old).mint(1, 7, 9, 1)
    both = file.add()
    assert (both.active, set(both.keys), both.pepper) == (2, {1, 2}, old.pepper)
    assert KeyRing(both).parse(code) == Signed(7, 9)
    one = file.retire(1)
    assert (one.active, set(one.keys), set(one.retired)) == (2, {2}, {1})
    assert not isinstance(KeyRing(one).parse(code), Signed)
    assert file.add().active == 3
    assert file.load().retired == {1}


def test_the_active_key_and_strange_keys_cannot_be_retired(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    file.create()
    with pytest.raises(KeyFault, match="add another key first"):
        file.retire(1)
    with pytest.raises(KeyFault, match="key 9 is not live; live are 1"):
        file.retire(9)


def test_two_writers_lose_no_key(tmp_path: Path) -> None:
    KeyFile(tmp_path).create()
    with ThreadPoolExecutor(4) as pool:
        active = [keys.active for keys in pool.map(lambda _: KeyFile(tmp_path).add(), range(12))]
    assert sorted(active) == list(range(2, 14))
    assert set(KeyFile(tmp_path).load().keys) == set(range(1, 14))


def test_key_ids_run_out_with_a_clear_word(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    keys = file.create()
    file.path.write_text(serialised(CodeKeys({255: keys.keys[1]}, 255, keys.pepper)))
    with pytest.raises(KeyFault, match="all 255 key ids"):
        file.add()


@pytest.mark.parametrize("mode", (0o640, 0o604, 0o620, 0o601))
def test_a_file_that_others_may_touch_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    file = KeyFile(tmp_path)
    file.create()
    file.path.chmod(mode)
    with pytest.raises(KeyFault, match=rf"mode {mode:04o}\): run `chmod 600 .*codes\.toml`"):
        file.load()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match=r"codes\.toml is missing\. Run `tillgate init`"):
        KeyFile(tmp_path).load()
    with pytest.raises(KeyFault, match="tillgate init"):
        KeyFile(tmp_path).add()


def test_a_backup_is_the_same_and_private_and_replaces_nothing(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    keys = file.create()
    target = tmp_path / "copy.toml"
    file.backup(target)
    assert parse(target.read_bytes(), "copy") == keys
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(KeyFault, match="exists already"):
        file.backup(target)
    with pytest.raises(KeyFault, match="cannot be written"):
        file.backup(tmp_path / "nowhere" / "copy.toml")


@given(st.dictionaries(st.integers(0, 255), _secret, min_size=1, max_size=4), _secret, st.sets(st.integers(256, 300)))
def test_what_is_written_is_what_is_read(keys: dict[int, bytes], pepper: bytes, retired: set[int]) -> None:
    before = CodeKeys(keys, min(keys), pepper, frozenset(retired))
    assert parse(serialised(before).encode(), "f") == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    (
        ("format = 1", "format = 2", "format"),
        ("active = 1", "active = 7", "active code key 7"),
        ("active = 1", "", "active"),
        ("pepper", "peper", "peper"),
        ("retired = []", "retired = [1]", "key 1 is both"),
        ('1 = "', '1 = "f', "keys"),
        ('1 = "', 'one = "', "int"),
        ('1 = "', '1000 = "', "1000"),
        ("[keys]", "[keys", "not TOML"),
    ),
)
def test_a_damaged_file_is_named_and_its_secrets_are_not_quoted(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = KeyFile(tmp_path)
    keys = file.create()
    file.path.write_text(file.path.read_text().replace(old, new, 1))
    with pytest.raises(KeyFault, match=r"codes\.toml") as caught:
        file.load()
    assert said in str(caught.value)
    assert keys.pepper.hex()[:12] not in str(caught.value)
    assert keys.keys[1].hex()[:12] not in str(caught.value)


@given(st.binary())
def test_any_bytes_are_keys_or_a_key_fault(content: bytes) -> None:
    with pytest.raises(KeyFault):
        parse(content, "f")
