"""Opening downloads: what is found, and what no archive may do."""

import gzip
import io
import os
import stat
import tarfile
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
