"""Vessels as a DICOM Segmentation that refers to its photograph, for a hospital's archive."""

from pathlib import Path

import numpy as np

from retina_utils import __version__
from retina_utils.intake.dicom import DicomError, open_dicom, refused
from retina_utils.machine.files import atomic_path


def write_segmentation(
    path: str | Path, vessels: np.ndarray, photograph: str | Path, *, threshold: float, network: str
) -> None:
    """Write (H, W) bool vessels as a binary DICOM Segmentation of one segment, whole or not at all.

    It refers to the DICOM file ``photograph`` and, so that an archive can file it, **bears the
    patient and the study of that file, the name too**. ``threshold`` and ``network`` (the
    checksum of the weights) are recorded. A DicomError says if the size differs from the
    photograph's, or the photograph lacks what a Segmentation must repeat.
    """
    source = open_dicom(photograph, pixels=False)
    with refused(photograph):
        if vessels.shape != (source.Rows, source.Columns):
            raise DicomError(f"is {source.Columns} pixels wide, its vessels {vessels.shape[1]}.")
        segmentation = _segmentation(source, vessels, threshold, network)
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def _segmentation(source, vessels: np.ndarray, threshold: float, network: str):
    """The Segmentation as highdicom makes it."""
    from highdicom import UID, AlgorithmIdentificationSequence, seg
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    # A photograph lies in no space: its frame of reference has no place, and highdicom reads no
    # scale again that has no slice's thickness. Both stand in the photograph referred to.
    for keyword in ("FrameOfReferenceUID", "PixelSpacing"):
        source.pop(keyword, None)
    source.NumberOfFrames, shared = 1, Dataset()
    object.__setattr__(shared, "PixelMeasuresSequence", None)  # sought where tomographs keep it
    source.SharedFunctionalGroupsSequence = [shared]
    algorithm = AlgorithmIdentificationSequence(
        name="retina_utils",
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        parameters={"threshold": f"{threshold:.6g}", "network": network},
    )
    what = codes.SCT.AnatomicalStructure, codes.SCT.BloodVessel
    how = seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm
    description = seg.SegmentDescription(
        1, "Retinal vessels", *what, *how, anatomic_regions=[codes.SCT.Retina]
    )
    return seg.Segmentation(
        [source],
        vessels,
        seg.SegmentationTypeValues.BINARY,
        [description],
        series_instance_uid=UID(),
        series_number=1000,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="retina_utils",
        manufacturer_model_name="retina_utils",
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=False,
        content_label="VESSELS",
    )
