"""DICOM photographs: what is read, what is refused, what of the patient leaves the file."""

import csv
import io
import os
import re
import stat
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from retina_utils import RetinaError, images, models
from retina_utils.checkpoint import Network, save_network
from retina_utils.commands import dicom_seg
from retina_utils.commands.__main__ import main
from retina_utils.data import DataError, load_data
from retina_utils.intake import dicom, listing
from retina_utils.patches import Preparation

pydicom = pytest.importorskip("pydicom")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import convert_color_space  # noqa: E402

OP8 = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
OP16 = "1.2.840.10008.5.1.4.1.1.77.1.5.2"
NAME, NUMBER, BORN = "Nachname^Vorname", "4711-0815", "19500102"


@pytest.fixture
def rgb(sample):
    """A photograph whose colours differ, of an odd height."""
    return np.ascontiguousarray(sample.image[:151, :200])


def dataset_of(values, colours="RGB", syntax=uid.ExplicitVRLittleEndian, stored=8, **attributes):
    """An Ophthalmic Photography object of (H, W) or (H, W, 3) values."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = OP8 if stored == 8 else OP16, uid.generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, NUMBER, BORN
    dataset.PatientSex, dataset.Modality, dataset.Manufacturer = "O", "OP", "Camera"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid.generate_uid(), uid.generate_uid()
    dataset.StudyDate = dataset.StudyTime = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName, dataset.InstanceNumber = "", 1
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation, dataset.NumberOfFrames = colours, 1
    dataset.BitsAllocated, dataset.BitsStored = 8 * values.itemsize, stored
    dataset.HighBit, dataset.PixelRepresentation = stored - 1, 0
    dataset.ImageLaterality, dataset.PixelSpacing = "L", [0.05, 0.06]
    pixels = values.tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OW" if values.itemsize == 2 else "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def put(dataset, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def encapsulated(dataset, frame, syntax):
    """The same with its pixels replaced by a compressed frame."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return dataset


def pillow_bytes(values, kind, **options):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


def lossless_jpeg(dataset, path):
    """Written by GDCM, the one encoder of it."""
    gdcm = pytest.importorskip("gdcm")
    put(dataset, path)
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(path))
    assert reader.Read()
    kind = gdcm.TransferSyntax.JPEGLosslessProcess14_1
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path


def deep(rgb, bits):
    """Grey values that use a range of that many bits, and the 8 bits they should become."""
    grey = rgb[..., 1].astype(np.uint32)
    grey = (grey - grey.min()) * (2**bits - 1) // (grey.max() - grey.min())
    return grey.astype(np.uint16), np.rint(grey * 255 / (2**bits - 1)).astype(np.uint8)


def compressed(dataset, syntax):
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_uncompressed_colours_stay_as_they_are(rgb, tmp_path, syntax):
    found = dicom.read_dicom(put(dataset_of(rgb, syntax=syntax), tmp_path / "a.dcm"))
    assert (found.image == rgb).all() and found.image.dtype == np.uint8
    assert found.laterality == "L" and found.pixel_spacing == (0.05, 0.06) and found.patient == ""


def test_big_endian_and_planes_one_after_the_other(rgb, tmp_path):
    grey, expected = deep(rgb, 12)
    dataset = dataset_of(grey.astype(">u2"), "MONOCHROME2", uid.ExplicitVRBigEndian, stored=12)
    assert (dicom.read_dicom(put(dataset, tmp_path / "b")).image[..., 0] == expected).all()
    planes = dataset_of(rgb, PlanarConfiguration=1)
    planes.PixelData = rgb.transpose(2, 0, 1).tobytes()
    assert (dicom.read_dicom(put(planes, tmp_path / "p")).image == rgb).all()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_sixteen_bits_are_scaled_by_the_bits_that_are_stored(rgb, tmp_path, bits):
    grey, expected = deep(rgb, bits)
    for name, colours in (("one", "MONOCHROME1"), ("two", "MONOCHROME2")):
        path = put(dataset_of(grey, colours, stored=bits), tmp_path / name)
        image = dicom.read_dicom(path).image
        assert (image == (expected if name == "two" else 255 - expected)[..., None]).all()
    colour = np.stack([grey, grey // 2, grey // 3], axis=-1)
    image = dicom.read_dicom(put(dataset_of(colour, stored=bits), tmp_path / "rgb")).image
    assert abs(image.astype(int) - colour / (2**bits - 1) * 255).max() <= 0.51


def test_eight_bits_kept_in_sixteen_stay_as_they_are(rgb, tmp_path):
    for name, values, colours in (("rgb", rgb, "RGB"), ("grey", rgb[..., 1], "MONOCHROME2")):
        path = put(dataset_of(values.astype(np.uint16), colours), tmp_path / name)
        image = dicom.read_dicom(path).image
        assert (
            image.dtype == np.uint8
            and (image == (rgb if name == "rgb" else values[..., None])).all()
        )


@pytest.mark.parametrize("said", [True, False])
def test_frames_that_are_not_declared_are_found(rgb, tmp_path, said):
    frame, dataset = pillow_bytes(rgb, "JPEG"), dataset_of(rgb)
    dataset.PixelData += dataset.PixelData
    if not said:
        del dataset.NumberOfFrames
    with pytest.raises(dicom.DicomError, match="holds 2 frames"):
        dicom.read_dicom(put(dataset, tmp_path / "a.dcm"))
    encapsulated(dataset, frame, uid.JPEGBaseline8Bit).PixelData = encapsulate([frame, frame])
    with pytest.raises(dicom.DicomError, match="holds 2 frames"):
        dicom.read_dicom(put(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_a_stream_of_another_size_or_kind_than_its_header_is_refused(rgb, tmp_path, kind):
    syntax = uid.JPEGBaseline8Bit if kind == "JPEG" else uid.JPEG2000Lossless
    for other in (rgb[:100], rgb[:, :100], np.concatenate([rgb, rgb]), rgb[..., 1], rgb[:75, :99]):
        frame = pillow_bytes(np.ascontiguousarray(other), kind)
        path = put(encapsulated(dataset_of(rgb), frame, syntax), tmp_path / "a.dcm")
        with pytest.raises(dicom.DicomError, match="cannot be read"):
            dicom.read_dicom(path)


def test_eight_bit_grey_becomes_three_channels(rgb, tmp_path):
    grey = np.ascontiguousarray(rgb[..., 1])
    for name, colours in (("one", "MONOCHROME1"), ("two", "MONOCHROME2")):
        image = dicom.read_dicom(put(dataset_of(grey, colours), tmp_path / name)).image
        assert (image == (grey if name == "two" else 255 - grey)[..., None]).all()


@pytest.mark.parametrize("sixteen", [False, True])
def test_a_palette_becomes_its_colours(rgb, tmp_path, sixteen):
    small = Image.fromarray(rgb).quantize(256)
    table = np.array(small.getpalette()).reshape(-1, 3)
    dataset = dataset_of(np.asarray(small), "PALETTE COLOR")
    for column, colour in enumerate(("Red", "Green", "Blue")):
        entries = (table[:, column] * (257 if sixteen else 1)).astype("<u2")
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [len(table) % 65536, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", entries.tobytes())
    image = dicom.read_dicom(put(dataset, tmp_path / "a.dcm")).image
    assert (image == np.asarray(small.convert("RGB"))).all()


def test_uncompressed_ybr_becomes_rgb(rgb, tmp_path):
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    image = dicom.read_dicom(put(dataset_of(ybr, "YBR_FULL"), tmp_path / "full")).image
    assert abs(image.astype(int) - rgb).max() <= 2
    pairs = ybr.reshape(len(ybr), -1, 2, 3)  # Y Y B R for two neighbours
    packed = np.concatenate([pairs[..., 0], pairs[..., 0, 1:]], axis=-1)
    dataset = dataset_of(ybr, "YBR_FULL_422", PixelData=packed.tobytes())
    image = dicom.read_dicom(put(dataset, tmp_path / "422")).image
    assert abs(image.astype(int) - rgb).mean() < 3 and image[..., 0].mean() > image[..., 2].mean()


def adobe(transform):
    """An APP14 marker."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


@pytest.mark.parametrize("colours", ["YBR_FULL_422", "YBR_FULL", "RGB"])
@pytest.mark.parametrize("marker", ["JFIF", "none", "Adobe", "RGB"])
def test_a_jpegs_colours_are_those_of_its_stream(rgb, tmp_path, colours, marker):
    """Where a stream says how it was coded, cameras' headers that say otherwise do not count."""
    frame = pillow_bytes(rgb, "JPEG", quality=98, subsampling=0, keep_rgb=marker == "RGB")
    if marker in ("none", "Adobe"):
        assert frame[2:4] == b"\xff\xe0"
        rest = frame[4 + int.from_bytes(frame[4:6], "big") :]
        frame = frame[:2] + (adobe(1) if marker == "Adobe" else b"") + rest
    dataset = encapsulated(dataset_of(rgb, colours), frame, uid.JPEGBaseline8Bit)
    image = dicom.read_dicom(put(dataset, tmp_path / "a.dcm")).image
    expected = np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")).astype(int)
    if marker == "none" and colours == "RGB":  # nothing says otherwise
        expected = np.asarray(Image.fromarray(rgb).convert("YCbCr")).astype(int)
    assert abs(image - expected).max() <= 6 and abs(image - expected).mean() < 1


def test_grey_jpeg_and_extended_jpeg_of_eight_bits(rgb, tmp_path):
    grey = np.ascontiguousarray(rgb[..., 1])
    for syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        frame = pillow_bytes(grey, "JPEG", quality=100)
        dataset = encapsulated(dataset_of(grey, "MONOCHROME2"), frame, syntax)
        image = dicom.read_dicom(put(dataset, tmp_path / "a.dcm")).image
        assert abs(image.astype(int) - grey[..., None]).max() <= 3


LOSSLESS = {
    "JPEG": lossless_jpeg,
    "JPEG-LS": lambda d, path: put(compressed(d, uid.JPEGLSLossless), path),
    "RLE": lambda d, path: put(compressed(d, uid.RLELossless), path),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_compression_gives_the_same_pixels(rgb, tmp_path, kind):
    write, grey = LOSSLESS[kind], np.ascontiguousarray(rgb[..., 1])
    assert (dicom.read_dicom(write(dataset_of(rgb), tmp_path / "rgb")).image == rgb).all()
    one = dicom.read_dicom(write(dataset_of(grey, "MONOCHROME2"), tmp_path / "grey")).image
    assert (one == grey[..., None]).all()
    values, expected = deep(rgb, 12)
    dataset = dataset_of(values, "MONOCHROME2", stored=12)
    assert (dicom.read_dicom(write(dataset, tmp_path / "12")).image == expected[..., None]).all()


def test_near_lossless_jpeg_ls_is_near(rgb, tmp_path):
    dataset = dataset_of(rgb)
    dataset.compress(uid.JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    image = dicom.read_dicom(put(dataset, tmp_path / "a.dcm")).image
    assert abs(image.astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("colours", ["RGB", "YBR_RCT"])
def test_jpeg_2000_in_colour(rgb, tmp_path, colours):
    options = {"irreversible": False, "no_jp2": True, "mct": int(colours == "YBR_RCT")}
    frame = pillow_bytes(rgb, "JPEG2000", **options)
    dataset = encapsulated(dataset_of(rgb, colours), frame, uid.JPEG2000Lossless)
    assert (dicom.read_dicom(put(dataset, tmp_path / "a.dcm")).image == rgb).all()
    frame = pillow_bytes(rgb, "JPEG2000", irreversible=True, no_jp2=True)
    dataset = encapsulated(dataset_of(rgb, "YBR_ICT"), frame, uid.JPEG2000)
    image = dicom.read_dicom(put(dataset, tmp_path / "b.dcm")).image
    assert abs(image.astype(int) - rgb).mean() < 2


def test_jpeg_2000_of_sixteen_bits(rgb, tmp_path):
    values, expected = deep(rgb, 16)
    frame = pillow_bytes(values, "JPEG2000", irreversible=False, no_jp2=True)
    dataset = encapsulated(
        dataset_of(values, "MONOCHROME2", stored=16), frame, uid.JPEG2000Lossless
    )
    assert (dicom.read_dicom(put(dataset, tmp_path / "a")).image == expected[..., None]).all()


@pytest.mark.parametrize("kind", ["baseline", "2000", *LOSSLESS])
def test_a_truncated_stream_is_refused_not_filled_with_grey(rgb, tmp_path, kind):
    path = tmp_path / "a.dcm"
    if kind in LOSSLESS:
        LOSSLESS[kind](dataset_of(rgb), path)
    else:
        frame = pillow_bytes(rgb, "JPEG" if kind == "baseline" else "JPEG2000")
        syntax = uid.JPEGBaseline8Bit if kind == "baseline" else uid.JPEG2000Lossless
        put(encapsulated(dataset_of(rgb), frame, syntax), path)
    dataset = pydicom.dcmread(path)
    [whole] = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    for share in (0.9, 0.5, 0.1):
        dataset.PixelData = encapsulate([whole[: int(len(whole) * share)]])
        with pytest.raises(dicom.DicomError, match="cannot be read"):
            dicom.read_dicom(put(dataset, path))


def test_a_decoder_that_breaks_down_takes_no_other_file_with_it(rgb, tmp_path):
    """GDCM calls abort() over some damaged streams, such as one without its first marker."""
    path = lossless_jpeg(dataset_of(rgb), tmp_path / "a.dcm")
    dataset, broken = pydicom.dcmread(path), 0
    [whole] = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    for place in range(2, 40, 9):
        frame = bytearray(whole)
        frame[place] ^= 0x55
        dataset.PixelData = encapsulate([bytes(frame)])
        try:
            dicom.read_dicom(put(dataset, path))
        except dicom.DicomError as error:
            broken += "cannot be read" in str(error)
    assert broken


def spoiled(keyword, value, **others):
    def spoil(dataset):
        for key, changed in {keyword: value, **others}.items():
            if changed is None:
                delattr(dataset, key)
            else:
                setattr(dataset, key, changed)

    return spoil


WRONG = {
    "several frames": (spoiled("NumberOfFrames", 5), "holds 5 frames, expected one"),
    "no pixels": (spoiled("PixelData", None), "no pixels"),
    "no size": (spoiled("Rows", None), "no pixels"),
    "a segmentation": (spoiled("SOPClassUID", uid.SegmentationStorage), "no photograph"),
    "a CT": (spoiled("SOPClassUID", uid.CTImageStorage), "no photograph"),
    "nothing said": (spoiled("SOPClassUID", None), "no photograph"),
    "other colours": (spoiled("PhotometricInterpretation", "HSV"), "colours HSV"),
    "signed": (spoiled("PixelRepresentation", 1), "unsigned"),
    "upper bits": (spoiled("BitsStored", 7), "Expected the lower ones"),
    "12 of 32 bits": (spoiled("BitsAllocated", 32), "Expected the lower ones"),
    "too many pixels": (spoiled("Rows", 65535, Columns=65535), "at most 100000000 are read"),
    "half the pixels": (spoiled("Rows", 302), "cannot be read"),
    "an eye of 300 mm": (spoiled("PixelSpacing", [2.0, 1.5]), "300 x 302 mm"),
    "an eye of a tenth": (spoiled("PixelSpacing", [0.0005, 0.0005]), "0.1 x 0.0755 mm"),
    "a spacing of zero": (spoiled("PixelSpacing", [0, 0]), " mm by its PixelSpacing"),
    "a negative spacing": (spoiled("PixelSpacing", [-0.05, 0.05]), " mm by its PixelSpacing"),
    "one spacing": (spoiled("PixelSpacing", 0.05), "cannot be read"),
    "12-bit lossy JPEG": (lambda d: encapsulated(d, b"x", uid.JPEGExtended12Bit), "cannot be read"),
    "a film": (
        lambda d: encapsulated(d, b"x", uid.MPEG4HP41),
        "transfer syntax MPEG-4 AVC/H.264 High Profile / Level 4.1 is not read",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_photograph_of_an_eye_is_refused_by_name(rgb, tmp_path, kind):
    spoil, words = WRONG[kind]
    dataset = dataset_of(rgb)
    spoil(dataset)
    path = put(dataset, tmp_path / "a.dcm") if "SOPClassUID" in dataset else tmp_path / "a.dcm"
    if not path.exists():
        dataset.file_meta.MediaStorageSOPClassUID = OP8
        dataset.save_as(path)
        path.write_bytes(b"\0" * 128 + b"DICM" + path.read_bytes())
    with pytest.raises(images.ImageError, match=re.escape(str(path))) as caught:
        images.read_photograph(path)
    said = str(caught.value)
    assert words in said and "\n" not in said
    assert not [secret for secret in ("Nachname", "Vorname", NUMBER, BORN) if secret in said]


def test_a_range_that_the_bits_do_not_explain_is_refused(rgb, tmp_path):
    twelve, _ = deep(rgb, 12)
    for stored in (10, 16):
        path = put(dataset_of(twelve, "MONOCHROME2", stored=stored), tmp_path / "a.dcm")
        with pytest.raises(dicom.DicomError, match="reaches 4095, which"):
            dicom.read_dicom(path)


def test_damaged_files_end_in_a_sentence_and_quote_nothing(rgb, tmp_path, recwarn, caplog):
    path, rng = put(dataset_of(rgb), tmp_path / "a.dcm"), np.random.default_rng(0)
    whole = path.read_bytes()
    head = len(whole) - rgb.size - 1
    for number in range(300):
        spoiled_bytes = bytearray(whole)
        if number % 3:
            for place in rng.integers(132, head, 1 + number % 5):
                spoiled_bytes[place] = rng.integers(256)
        else:
            del spoiled_bytes[rng.integers(132, len(whole)) :]
        path.write_bytes(spoiled_bytes)
        try:
            image = images.read_photograph(path)
        except images.ImageError as error:
            assert str(path) in str(error) and "Vorname" not in str(error)
        else:
            assert image.ndim == 3 and image.dtype == np.uint8
    assert not [*recwarn] and not caplog.records


def test_the_side_is_told_only_where_it_is_sure(rgb, tmp_path):
    told = {}
    for image, series in (
        ("R", None),
        (None, "L"),
        ("B", None),
        ("R", "L"),
        ("R", "R"),
        (None, None),
    ):
        dataset = dataset_of(rgb)
        del dataset.ImageLaterality
        if image:
            dataset.ImageLaterality = image
        if series:
            dataset.Laterality = series
        told[image, series] = dicom.read_dicom(put(dataset, tmp_path / "a.dcm")).laterality
    assert [*told.values()] == ["R", "L", "", "", "R", ""]


def test_the_pseudonym_depends_on_the_number_and_the_key_alone(rgb, tmp_path):
    key, other = dicom.patients_key(tmp_path), b"b" * 64
    assert dicom.patients_key(tmp_path) == key and len(key) == 64
    assert stat.S_IMODE((tmp_path / "patients.key").stat().st_mode) == 0o600

    def patient(key, **attributes):
        path = put(dataset_of(rgb, **attributes), tmp_path / "a.dcm")
        found = dicom.read_dicom(path, key).patient
        assert found == dicom.pseudonym(dicom.open_dicom(path, pixels=False), key)
        return found

    mine = patient(key)
    assert re.fullmatch("p[0-9a-f]{16}", mine)
    assert mine == patient(key, PatientName="Other^Name", ImageLaterality="R")
    assert len({mine, patient(other), patient(key, PatientID="4711-0816")}) == 3
    assert patient(key, PatientID="") == ""
    (tmp_path / "patients.key").write_text("short")
    with pytest.raises(RetinaError, match=r"patients\.key: holds 5 characters"):
        dicom.patients_key(tmp_path)


def test_without_the_extra_a_dicom_file_is_refused_and_others_are_read(rgb, tmp_path, monkeypatch):
    path = put(dataset_of(rgb), tmp_path / "a.dcm")
    images.write_png(tmp_path / "a.png", rgb)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(images.ImageError, match=r"a\.dcm.*pip install 'retina-utils\[dicom\]'"):
        images.read_photograph(path)
    assert (images.read_photograph(tmp_path / "a.png") == rgb).all()


def test_dicom_without_an_ending_is_listed_and_other_files_are_not(rgb, tmp_path):
    for name in ("IM0001", "1.2.840.113619.5", "b.dcm", "c.DCM", "DICOMDIR"):
        put(dataset_of(rgb), tmp_path / name)
    (tmp_path / "README").write_text("words")
    (tmp_path / "notes.txt").write_text("words")
    found = [file.name for file in listing.list_images(tmp_path)]
    assert found == ["1.2.840.113619.5", "IM0001", "b.dcm", "c.DCM"]
    assert (images.read_photograph(tmp_path / "IM0001") == rgb).all()
    (tmp_path / "d.dcm").write_text("words")
    with pytest.raises(images.ImageError, match=r"d\.dcm: is no DICOM file"):
        images.read_photograph(tmp_path / "d.dcm")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.pt"
    preparation = Preparation(patch_size=64, stride=64, fov_diameter=96)
    save_network(path, Network(models.UNet(widths=[2, 4]), preparation, threshold=0.3673))
    return path


def rows_of(out):
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def predict(folder, out, weights, *more):
    return main(["predict", str(folder), "--out", str(out), "--weights", str(weights), *more])


def test_a_folder_of_dicom_is_predicted_and_its_summary_tells_no_name(sample, weights, tmp_path):
    folder, out = tmp_path / "photographs", tmp_path / "maps"
    right = {"ImageLaterality": "R", "PixelSpacing": [0.01, 0.01]}
    for name, more in (("IM0001", right), ("1.2.840.5", {}), ("1.2.840.6", {}), ("d.dcm", {})):
        dataset = dataset_of(sample.image, **more)
        if name == "d.dcm":
            dataset.NumberOfFrames = 3
        if name == "1.2.840.6":
            dataset.PatientID = "other"
            del dataset.PixelSpacing
        put(dataset, folder / name)
    images.write_png(folder / "plain.png", sample.image)
    assert predict(folder, out, weights) == 1
    rows = rows_of(out)
    assert [row["status"] for _, row in sorted(rows.items())].count("done") == 4
    assert "holds 3 frames" in rows["d.dcm"]["message"] and rows["d.dcm"]["status"] == "failed"
    one, two, three = (rows[name] for name in ("IM0001", "1.2.840.5", "1.2.840.6"))
    assert (one["laterality"], two["laterality"]) == ("R", "L")
    assert (one["pixel_spacing_mm"], two["pixel_spacing_mm"]) == ("0.01 0.01", "0.05 0.06")
    assert three["pixel_spacing_mm"] == rows["plain.png"]["patient"] == ""
    assert one["patient"] == two["patient"] != three["patient"] != ""
    maps = [images.read_binary(out / f"{name}_vessels.png") for name in ("IM0001", "plain")]
    assert (maps[0] == maps[1]).all() and (out / "1.2.840.6_overlay.png").exists()
    for file in (path for path in out.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert not [s for s in ("Nachname", "Vorname", NUMBER, BORN) if s.encode() in content], file
    again = rows_of(out) if predict(folder, out, weights) == 1 else {}
    assert again["IM0001"] == one


def test_the_summary_of_other_photographs_has_no_columns_for_dicom(sample, weights, tmp_path):
    images.write_png(tmp_path / "photographs" / "plain.png", sample.image)
    assert predict(tmp_path / "photographs", tmp_path / "maps", weights) == 0
    [row] = rows_of(tmp_path / "maps").values()
    assert (
        not {"laterality", "pixel_spacing_mm", "patient"} & set(row)
        and not (tmp_path / "maps" / "patients.key").exists()
    )


@pytest.mark.parametrize(
    "kind", ["OP 8", "OP 16", "frame of reference", "laterality", "JPEG", "no scale", "SC"]
)
def test_a_segmentation_holds_the_vessels_and_refers_to_its_photograph(sample, tmp_path, kind):
    seg = pytest.importorskip("highdicom").seg
    image, vessels = sample.image, sample.vessels
    dataset = dataset_of(image)
    if kind == "OP 16":
        dataset = dataset_of(image[..., 1].astype(np.uint16) * 16, "MONOCHROME2", stored=12)
    if kind == "frame of reference":
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid.generate_uid(), ""
        dataset.SynchronizationFrameOfReferenceUID = uid.generate_uid()
    if kind == "laterality":
        dataset.Laterality = "L"
    if kind == "no scale":
        del dataset.PixelSpacing
    if kind == "SC":
        dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
        del dataset.NumberOfFrames
    if kind == "JPEG":
        dataset = encapsulated(dataset, pillow_bytes(image, "JPEG"), uid.JPEGBaseline8Bit)
    source, path = put(dataset, tmp_path / "a"), tmp_path / "a_vessels.dcm"
    dicom_seg.write_segmentation(path, vessels, source, threshold=0.4375, network="f" * 64)
    found = pydicom.dcmread(path)
    assert (found.pixel_array.squeeze() == vessels).all() and found.SegmentationType == "BINARY"
    assert found.SOPClassUID == uid.SegmentationStorage and found.PatientID == NUMBER
    assert found.StudyInstanceUID == dataset.StudyInstanceUID
    assert found.SeriesInstanceUID != dataset.SeriesInstanceUID
    [series] = found.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == dataset.SeriesInstanceUID
    [instance] = series.ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    assert instance.ReferencedSOPClassUID == dataset.SOPClassUID
    [segment] = found.SegmentSequence
    [algorithm] = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmParameters == f"threshold=0.4375,network={'f' * 64}"
    read = seg.segread(path)
    pixels = read.get_pixels_by_source_instance(
        [dataset.SOPInstanceUID], ignore_spatial_locations=True
    )
    assert (pixels[0, ..., 0].astype(bool) == vessels).all()
    with pytest.raises(images.ImageError, match="is no photograph"):
        images.read_photograph(path)


def test_no_segmentation_is_written_where_it_would_be_wrong(sample, tmp_path):
    pytest.importorskip("highdicom")
    source = put(dataset_of(sample.image), tmp_path / "a.dcm")
    facts = {"threshold": 0.5, "network": "f"}
    with pytest.raises(dicom.DicomError, match="its vessels 7"):
        dicom_seg.write_segmentation(tmp_path / "b", np.ones((5, 7), bool), source, **facts)
    dataset = dataset_of(sample.image)
    del dataset.StudyInstanceUID
    source = put(dataset, tmp_path / "a.dcm")
    with pytest.raises(dicom.DicomError, match=r"a\.dcm: cannot be read \(AttributeError\)"):
        dicom_seg.write_segmentation(tmp_path / "b", sample.vessels, source, **facts)
    assert not (tmp_path / "b").exists()


def test_segmentations_are_written_where_wanted_and_go_with_a_map_that_changes(
    sample, weights, tmp_path
):
    pytest.importorskip("highdicom")
    folder, out = tmp_path / "photographs", tmp_path / "maps"
    put(dataset_of(sample.image), folder / "a.dcm")
    images.write_png(folder / "plain.png", sample.image)
    path = out / "a_vessels.dcm"

    def call(*more):
        assert predict(folder, out, weights, *more) == 0
        return [file.name for file in out.iterdir() if file.suffix == ".dcm"]

    assert call() == []
    assert call("--dicom-seg") == ["a_vessels.dcm"]
    vessels = images.read_binary(out / "a_vessels.png")
    assert (pydicom.dcmread(path).pixel_array.squeeze() == vessels).all()
    before = path.stat().st_mtime_ns
    assert call("--dicom-seg") == call() == ["a_vessels.dcm"] and path.stat().st_mtime_ns == before
    path.unlink()
    assert call("--dicom-seg") == ["a_vessels.dcm"]
    assert call("--threshold", "0.367") == []  # other vessels


@pytest.fixture
def patients(folder, rgb):
    """A data folder whose photographs are DICOM files of four patients."""
    for number, path in enumerate(sorted(folder.rglob("images/*.png"))):
        image = images.read_photograph(path)
        put(dataset_of(image, PatientID=f"no {number}"), path.with_suffix(".dcm"))
        path.unlink()
    return folder


def change(path, **attributes):
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return put(dataset, path)


def test_the_patients_of_a_data_folder_go_by_pseudonyms(patients):
    splits = load_data(patients)
    people = [pair.person for pairs in splits for pair in pairs]
    assert len({*people}) == 4 and all(re.fullmatch("p[0-9a-f]{16}", p) for p in people)
    assert people == [pair.person for pairs in load_data(patients) for pair in pairs]
    assert stat.S_IMODE((patients / "patients.key").stat().st_mode) == 0o600
    change(patients / "training" / "images" / "a.dcm", PatientID="no 0")
    with pytest.raises(DataError, match="has photographs in test and train"):
        load_data(patients)
    (patients / "people.csv").write_text("name,person\na,somebody\n")
    assert load_data(patients).train[0].person == "somebody"


def test_dicom_in_a_data_folder_may_have_no_ending(patients):
    path = patients / "test" / "images" / "d.dcm"
    path.rename(path.with_name("1.2.840.7"))
    for kind, ending in (("masks", "mask"), ("fov", "fov")):
        file = patients / "test" / kind / f"d_{ending}.png"
        file.rename(file.with_name(f"1.2.840.7_{ending}.png"))
    [pair] = load_data(patients).test
    assert pair.name == "1.2.840.7" and pair.image.name == "1.2.840.7"


def test_what_is_wrong_with_dicom_in_a_data_folder_is_listed(patients, monkeypatch):
    change(patients / "training" / "images" / "a.dcm", NumberOfFrames=2)
    (patients / "patients.key").write_text("short")
    with pytest.raises(DataError, match="holds 2 frames") as caught:
        load_data(patients)
    assert len(caught.value.problems) == 2 and "holds 5 characters" in caught.value.problems[0]
    (patients / "patients.key").unlink()

    def refuse(path, *more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError, match=r"Permission denied.*people\.csv"):
        load_data(patients)
