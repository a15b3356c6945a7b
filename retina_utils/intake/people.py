"""A photograph's name or its DICOM tags -> whose eye it shows."""

import re
from pathlib import Path

from retina_utils import RetinaError
from retina_utils.intake.dicom import DicomError, is_dicom, open_dicom, patients_key, pseudonym

# What tells the eye stands alone (05L, smith_left_v2) or begins with a capital (smithLeft).
EYE = re.compile(
    r"(?<![^\W\d_])(?i:left|right|links?|rechts?|o[ds]|[lr]e?)(?![^\W_])"
    r"|(?<=[a-z])(?:Left|Right|Links?|Rechts?|O[DS]|[LR]E?)(?![^\W_])"
)
DATE = r"(?:19|20)\d\d(?:[-_.]?[01]\d[-_.]?[0-3]\d(?:[-_T ]?\d{6})?)?"
NOBODY = re.compile(rf"(?<![^\W_])(?:{DATE}|[vV]\d+)(?![^\W_])")  # dates and versions
UK_BIOBANK = re.compile(r"(\d+)_2101[56]_\d+_\d+")  # person, left or right, visit, repetition


def person_of(name: str) -> str:
    """Whose eye a name tells of: ``Image_05L`` and ``Image_05R`` both give ``Image_05``.

    The eye is L, R, OD, OS, LE, RE, left or right (German too) anywhere in the name. What follows
    it counts if no number stands before it (``OD_001``), dates and versions never do. UK Biobank's
    names begin with the person. A name without an eye is a person of its own.
    """
    eyes = list(EYE.finditer(name))
    if not eyes:
        biobank = UK_BIOBANK.fullmatch(name)
        return biobank.group(1) if biobank else name
    parts = name[: eyes[-1].start()], name[eyes[-1].end() :]
    before, after = (NOBODY.sub("", EYE.sub("", part)).strip(" _-.()") for part in parts)
    if not re.search(r"\d", before):
        before = "_".join(filter(None, (before, after)))
    return before or name


def patient_of(image: Path, root: Path, problems: list[str]) -> str:
    """The pseudonym of a DICOM photograph's patient, by the key of the data folder ``root``.

    "" for other photographs, and where it cannot be told, which is added to ``problems``.
    """
    if not is_dicom(image):
        return ""
    try:
        return pseudonym(open_dicom(image, pixels=False), patients_key(root))
    except DicomError:  # reading the photograph will say why
        return ""
    except (RetinaError, OSError) as error:
        problem = f"{error} It makes pseudonyms; mend it, or name all people in people.csv."
        if problem not in problems:
            problems.append(problem)
        return ""
