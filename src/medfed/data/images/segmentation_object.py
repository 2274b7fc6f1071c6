"""DICOM segmentation objects (PS3.3 A.51): a predicted mask as what viewers show over its source. By highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, MissingExtra
from medfed.data.connectors.dicom import SeriesPicture
from medfed.data.images.files import FilePicture
from medfed.data.raw import Picture
from medfed.version import __version__

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NAME = "MedFed"
_MANDATORY_EVEN_IF_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_LONGEST_LABEL = 64
_SERIES_NUMBER = 900


def segmentation_object(sources: Sequence[Dataset], mask: NDArray[Any], classes: Sequence[str], model: str) -> Dataset:
    """A DICOM SEG of one mask, ready for ``save_as``: a binary segment for each class but the first.

    sources: the one file that was segmented, or those of a series in the order of the mask's slices; pixels are not
    needed. mask: class indices in the sources' own pixels, (rows, columns), or (slices or frames, rows, columns).
    classes: their names, the background first. model: the digest of the model, which the object names with MedFed as
    the algorithm. It refers to study, instances and, where there is one, frame of reference of the sources, and bears
    their patient. Segments are called by their class; what that means is coded privately (99MEDFED), for nobody but the
    task knows. Raises DataError where the mask is not one of the sources, or these lack what an object refers to;
    MissingExtra.
    """
    try:
        import highdicom
    except ImportError:
        raise MissingExtra(
            "writing DICOM segmentations needs the extra 'imaging' (highdicom is not installed)",
            remedy="pip install 'medfed[imaging]'",
        ) from None
    described = [_description(source) for source in sources]
    array = _checked(mask, described, len(classes))
    uid = highdicom.UID
    try:
        return highdicom.seg.Segmentation(
            source_images=described,
            pixel_array=array,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(number, name, model) for number, name in enumerate(classes) if number],
            series_instance_uid=uid(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=uid(),
            instance_number=1,
            manufacturer=_NAME,
            manufacturer_model_name=_NAME,
            software_versions=__version__,
            device_serial_number=model[:_LONGEST_LABEL],
            content_label="SEGMENTATION",
            content_description="Predicted by a model",
            omit_empty_frames=bool(array.any()),
            series_description=f"{_NAME} segmentation",
        )
    except (AttributeError, KeyError, ValueError):  # whose words may quote the file
        raise DataError(
            "the source lacks an element that a segmentation object refers to",
            remedy="an image needs the elements that DICOM wants of its kind: as a rule FrameOfReferenceUID, "
            "PixelSpacing, ImagePositionPatient and ImageOrientationPatient",
        ) from None


def segmentation_of(picture: Picture, mask: NDArray[Any], classes: Sequence[str], model: str) -> Dataset:
    """:func:`segmentation_object` of an image that the connector ``dicom`` gave, whose files it reads.

    mask: class indices in the pixels that ``picture.pixels()`` has, without channels: of one frame, a file or a series.
    Raises DataError as above, and where the image is none of DICOM or its files are gone; MissingExtra.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    slices = picture.slices if isinstance(picture, SeriesPicture) else (picture,)
    try:
        sources = [dcmread(each.path, stop_before_pixels=True) for each in slices if isinstance(each, FilePicture)]
    except (OSError, InvalidDicomError):
        raise DataError(
            "a segmentation object is of DICOM images alone, and this one cannot be read as one",
            where=f"file {picture.name}",
            remedy="give DICOM files",
        ) from None
    frames = int(sources[0].get("NumberOfFrames") or 1) if sources else 1
    if isinstance(picture, FilePicture) and picture.frame is not None and frames > 1:
        whole = np.zeros((frames, *np.shape(mask)), np.uint8)
        whole[picture.frame] = mask
        mask = whole
    return segmentation_object(sources, mask, classes, model)


def _description(source: Dataset) -> Dataset:
    """The source without its pixels, and with those elements, if empty, that the standard wants in every object."""
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.file_meta = source.file_meta
    ds.update({element.tag: element for element in source if element.keyword not in _PIXELS})
    for name in _MANDATORY_EVEN_IF_EMPTY:
        if name not in ds:
            setattr(ds, name, "")
    return ds


def _checked(mask: NDArray[Any], sources: Sequence[Dataset], classes: int) -> NDArray[np.uint8]:
    if not sources:
        raise DataError("a segmentation object needs the image it is of", remedy="give its DICOM files")
    frames = int(sources[0].get("NumberOfFrames") or 1) if len(sources) == 1 else len(sources)
    wanted = (frames, int(sources[0].Rows), int(sources[0].Columns))
    array = np.asarray(mask)
    array = array[None] if array.ndim == 2 else array
    if array.shape != wanted:
        raise DataError(
            f"the mask has the shape {list(array.shape)}, and its source {list(wanted)}",
            remedy="bring it back to the source's own pixels first",
        )
    if array.dtype.kind not in "bui" or array.min() < 0 or array.max() >= classes:
        raise DataError("the mask has numbers that are no class", remedy="give class indices, 0 being the background")
    return array.astype(np.uint8)


def _segment(number: int, name: str, model: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:_LONGEST_LABEL],
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=highdicom.sr.CodedConcept(str(number), "99MEDFED", name[:_LONGEST_LABEL]),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=_NAME,
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            parameters={"model": model},
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=f"{_NAME} {number}",
    )
