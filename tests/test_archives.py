"""Opening downloads: what is found, and what no archive may do."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import tracemalloc
import zipfile
from collections import namedtuple

import pytest

from retina_utils import RetinaError
from retina_utils.datasets import archives
from retina_utils.datasets.archives import open_download

FILES = {"b/one.txt": b"one" * 400, "b/two.txt": b"two" * 400, "three.txt": b"three"}


def write_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files=FILES, kinds=None):
    packed = path.name.endswith("gz")
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (kinds or {}).get(name, (tarfile.REGTYPE, ""))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


WRITE = {"x.zip": write_zip, "x.tar": write_tar, "x.tar.gz": write_tar, "x.tgz": write_tar}


def contents(source, parts=()):
    with open_download(source, parts) as files:
        return {name: path.read_bytes() for name, path in files.items()}


@pytest.mark.parametrize("name", WRITE)
def test_an_archive_is_named_as_a_folder_of_its_name_would_be(tmp_path, name):
    expected = {f"x/{inner}": content for inner, content in FILES.items()}
    assert contents(WRITE[name](tmp_path / name)) == expected
    (tmp_path / "again").mkdir()
    assert contents(WRITE[name](tmp_path / "again" / name, expected)) == expected


def test_what_was_unpacked_goes_and_a_folder_stays_as_it_is(tmp_path):
    write_zip(tmp_path / "training.zip")
    before = sorted(tmp_path.rglob("*"))
    with open_download(tmp_path, ("training",)) as files:
        unpacked = files["training/three.txt"]
        assert unpacked.read_bytes() == b"three" and tmp_path not in unpacked.parents
    assert not unpacked.exists() and sorted(tmp_path.rglob("*")) == before


def test_only_the_archives_asked_for_are_opened_one_level_deep(tmp_path):
    inner = write_zip(tmp_path / "inner.zip").read_bytes()
    outer = write_tar(tmp_path / "d.tar", {"training.zip": inner, "other.zip": b"not a zip file"})
    found = contents(outer, ("training", "inner"))
    assert {f"d/training/{name}" for name in FILES} < found.keys()
    assert found["d/other.zip"] == b"not a zip file"
    nested = write_zip(tmp_path / "e.zip", {"training.tar": outer.read_bytes()})
    assert "e/training/training/three.txt" not in contents(nested, ("training",))


def test_gzipped_images_are_opened_and_a_file_that_is_there_counts_first(tmp_path):
    (tmp_path / "a.ppm.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "b.ppm.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "b.ppm").write_bytes(b"plain")
    (tmp_path / "notes.txt.gz").write_bytes(b"not gzip")
    found = contents(tmp_path)
    assert found["a.ppm"] == b"packed" and found["b.ppm"] == b"plain"
    assert "notes.txt" not in found


def test_hidden_files_are_not_part_of_a_download(tmp_path):
    files = {"a.png": b"a", "__MACOSX/._a.png": b"x", ".cache/b.png": b"x", "._a.png": b"x"}
    assert contents(write_zip(tmp_path / "x.zip", files)) == {"x/a.png": b"a"}


@pytest.mark.parametrize("bad", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize("name", WRITE)
def test_an_archive_cannot_write_outside_its_folder(tmp_path, name, bad):
    archive = WRITE[name](tmp_path / name, FILES | {bad: b"x"})
    with pytest.raises(RetinaError, match=r"1 problem.*\n.*evil\.txt' would be written outside"):
        contents(archive)
    assert not list(tmp_path.rglob("evil.txt")) and not os.path.exists("/evil.txt")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", ["x.tar", "x.tgz"])
def test_links_and_devices_in_a_tar_file_are_refused(tmp_path, name, kind):
    archive = write_tar(tmp_path / name, FILES | {"link": b""}, {"link": (kind, "/etc/passwd")})
    with pytest.raises(RetinaError, match="'link' is a link or a device"):
        contents(archive)


def test_links_in_a_zip_file_are_refused(tmp_path):
    archive = write_zip(tmp_path / "x.zip")
    with zipfile.ZipFile(archive, "a") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(RetinaError, match="'link' is a link or a device"):
        contents(archive)


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", WRITE)
def test_a_truncated_archive_is_refused(tmp_path, name, share):
    rng_text = "".join(chr(33 + (k * k * 7 + k // 3) % 90) for k in range(30_000)).encode()
    archive = WRITE[name](tmp_path / name, {f"{k}.txt": rng_text[k:] for k in range(3)})
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(RetinaError, match=r"not a complete (zip|tar) file .*Download it again"):
        contents(archive)


def test_a_tar_file_cut_between_two_members_is_refused(tmp_path):
    archive = write_tar(tmp_path / "x.tar", {"a": bytes(512), "b": bytes(512)})
    archive.write_bytes(archive.read_bytes()[:1024])  # all of "a", nothing of "b"
    with pytest.raises(RetinaError, match=r"not a complete tar file .*end mark"):
        contents(archive)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz"])
def test_a_web_page_saved_under_an_archives_name_is_refused(tmp_path, name):
    (tmp_path / name).write_text("<html>Please log in to download.</html>" * 20)
    with pytest.raises(RetinaError, match=r"not a complete (zip|tar) file"):
        contents(tmp_path / name)


def test_an_encrypted_member_is_refused(tmp_path):
    archive = write_zip(tmp_path / "x.zip", {"a.txt": b"secret"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag of the local header, and that of the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(RetinaError, match=r"not a complete zip file \(.*encrypted"):
        contents(archive)


@pytest.mark.parametrize(
    ("name", "start"),
    [("x.rar", b"Rar!\x1a\x07"), ("x.7z", b"7z\xbc\xaf\x27\x1c"), ("x.zip", b"Rar!\x1a\x07")],
)
def test_archives_of_other_kinds_have_to_be_unpacked_first(tmp_path, name, start):
    (tmp_path / name).write_bytes(start + bytes(100))
    with pytest.raises(RetinaError, match="Unpack it first, then give the folder"):
        contents(tmp_path / name)


def test_an_archive_larger_than_the_free_disk_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RetinaError, match=r"unpacked it takes .* Set TMPDIR"):
        contents(write_zip(tmp_path / "x.zip"))


@pytest.mark.parametrize("name", ["x.tgz", "x.tar.gz"])
def test_a_wrong_checksum_at_the_very_end_is_seen_before_anything_is_unpacked(tmp_path, name):
    archive = write_tar(tmp_path / name)
    data = bytearray(archive.read_bytes())
    data[-5] ^= 1  # of the checksum, which nothing in the archive needs
    archive.write_bytes(data)
    with pytest.raises(RetinaError, match=f"{name}: not a complete tar file .*CRC"):
        contents(archive)
    archive.write_bytes(data[:-8])
    with pytest.raises(RetinaError, match=f"{name}: not a complete tar file"):
        contents(archive)


@pytest.mark.parametrize(("ending", "pack"), [("tar.bz2", bz2.compress), ("tar.xz", lzma.compress)])
def test_other_compressed_tar_files_are_read_to_their_end_too(tmp_path, ending, pack):
    packed = pack(write_tar(tmp_path / "y.tar").read_bytes())
    archive = tmp_path / f"x.{ending}"
    archive.write_bytes(packed)
    assert contents(archive) == {f"x/{inner}": content for inner, content in FILES.items()}
    archive.write_bytes(packed[:-1])
    with pytest.raises(RetinaError, match="not a complete tar file"):
        contents(archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz"])
@pytest.mark.parametrize("second", ["b/one.txt", "./b/one.txt", "b//one.txt"])
def test_a_file_that_is_there_twice_is_refused_by_name(tmp_path, name, second):
    members = [("b/one.txt", b"first"), (second, b"second"), ("c.txt", b"")]
    if name == "x.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, content in members:
                archive.writestr(member, content)
    else:
        with tarfile.open(tmp_path / name, "w:gz" if name == "x.tgz" else "w") as archive:
            for member, content in members:
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(RetinaError, match=r"\n.*'b/one.txt' is there twice"):
        contents(tmp_path / name)


def test_a_folder_may_be_told_twice(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for _ in range(2):
            folder = tarfile.TarInfo("b")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
    assert contents(tmp_path / "x.tar") == {}


def bomb(folder, name, size):
    """Zeros that pack a thousandfold."""
    path, zeros = folder / name, bytes(size)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", zeros)
        return path
    if name.endswith("tar.gz"):
        return write_tar(path, {"a.png": zeros})
    path.write_bytes(gzip.compress(zeros))
    return folder


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "a.png.gz"])
def test_an_archive_that_expands_beyond_all_photographs_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS", 10**6)
    source = bomb(tmp_path, name, 3 * 10**6)
    with pytest.raises(RetinaError, match=rf"{name}: unpacked it takes .*200 times the archive"):
        contents(source)
    monkeypatch.setattr(archives, "ALWAYS", 10**7)
    assert contents(source)
    monkeypatch.setattr(archives, "LARGEST", 2 * 10**6)
    with pytest.raises(RetinaError, match=f"{name}: unpacked it takes"):
        contents(source)


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST", 2)
    with pytest.raises(RetinaError, match=r"x\.zip: holds 3 files, expected 2 at most"):
        contents(write_zip(tmp_path / "x.zip"))


def test_a_header_of_gigabytes_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "x.tar"
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 2 * 10**8
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(3 * 10**8)
    tracemalloc.start()
    with pytest.raises(RetinaError, match=r"x\.tar: not a complete tar file .*header of 200 MB"):
        contents(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5 * 10**7


def test_a_sparse_member_is_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"hole": b""}, {"hole": (tarfile.GNUTYPE_SPARSE, "")})
    with pytest.raises(RetinaError, match="'hole' is a link or a device"):
        contents(path)


def test_backslashes_in_a_zip_file_are_folders(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"train\\Original\\1_A.png": b"x", "train\\": b""})
    assert contents(path) == {"x/train/Original/1_A.png": b"x"}


@pytest.mark.parametrize(
    ("coding", "name"),
    [
        ("utf-8", "眼底图像/a.png"),
        ("gbk", "誠信/a.png"),  # the second byte of its first character is a backslash
        ("cp437", "Santé/a.png"),
    ],
)
def test_names_of_old_zip_programs_are_read_in_their_coding(tmp_path, coding, name):
    raw = name.encode(coding)
    stand_in = "n" * len(raw)
    path = write_zip(tmp_path / "x.zip", {stand_in: b"x"})
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), raw))
    assert contents(path) == {f"x/{name}": b"x"}
