"""DICOM values become the greys and colours of the standard; each test fails on a usual naive reading."""

from __future__ import annotations

import highdicom
import imagecodecs
import numpy as np
import pytest
from dicom_objects import CAPTURE, CR, CT, ENHANCED_CT, MR, PET, ct, item, picture, rendered, shown
from pydicom.encaps import encapsulate

from medkit.errors import DataError
from medkit.readers.dicom.decode import decode, describe
from medkit.readers.dicom.frames import group_of_frame
from medkit.readers.dicom.profiles import choose_profiles, shipped
from medkit.readers.dicom.reasons import Refused
from medkit.readers.dicom.render import modality_transform

U16, I16, U8 = np.uint16, np.int16, np.uint8
GREY = np.array([[0, 1000, 2000, 4095]], U16)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def test_hounsfield_units_come_before_the_window() -> None:
    values = np.array([[1024, 1064, 1264, 864]], U16)  # 0, 40, 240 and -160 HU
    assert shown(ct(values), "ct-abdomen") == [[102, 128, 255, 0]]


def test_a_pixel_keeps_its_grey_whatever_else_is_in_the_picture() -> None:
    # A spread by the windowed picture's own least and greatest would make 0 HU white where no bone is.
    with_bone = shown(ct(np.array([[0, 1024, 3024]], U16)), "ct-abdomen")
    without = shown(ct(np.array([[0, 1024, 1024]], U16)), "ct-abdomen")
    assert with_bone == [[0, 102, 255]]
    assert without == [[0, 102, 102]]


def test_negative_units_of_unsigned_values_do_not_wrap() -> None:
    values = np.array([[0, 24, 1024, 4095]], U16)
    made = ct(values)
    assert modality_transform(made, 0, False).apply(values).tolist() == [[-1024, -1000, 0, 3071]]
    assert shown(made, "ct-wide") == [[0, 0, 128, 255]]


def test_three_windows_are_red_green_and_blue() -> None:
    values = np.array([[1024, 1064, 889, 1239]], U16)  # 0, 40, -135, 215 HU
    assert shown(ct(values), "ct-medgemma-1.5") == [
        [[128, 98, 0], [132, 128, 128], [111, 0, 0], [154, 255, 255]]
    ]
    # The first family's red window is another one: WL -100 WW 2250.
    assert shown(ct(values), "ct-medgemma-1")[0][0] == [139, 98, 0]


def test_deep_values_are_not_cut_to_their_low_byte() -> None:
    made = picture(np.array([[0, 255, 256, 511, 512]], U16), WindowCenter=256, WindowWidth=513)
    assert shown(made) == [[0, 127, 128, 255, 255]]


def test_the_first_of_several_windows_is_used() -> None:
    made = picture(GREY, WindowCenter=[1000, 40], WindowWidth=[2001, 400])
    assert shown(made) == [[0, 128, 255, 255]]


def test_the_window_function_is_obeyed() -> None:
    linear = shown(picture(GREY, **WINDOW))
    exact = shown(picture(GREY, **WINDOW, VOILUTFunction="LINEAR_EXACT"))
    sigmoid = shown(picture(GREY, **WINDOW, VOILUTFunction="SIGMOID"))
    assert linear == [[0, 62, 125, 255]]
    assert exact == [[0, 62, 125, 255]]
    assert sigmoid == [[30, 67, 125, 225]]
    narrow = {"WindowCenter": 2, "WindowWidth": 4}
    assert shown(picture(np.array([[0, 1, 2, 3]], U16), **narrow)) == [[0, 85, 170, 255]]
    assert shown(picture(np.array([[0, 1, 2, 3]], U16), **narrow, VOILUTFunction="LINEAR_EXACT")) == [
        [0, 64, 128, 191]
    ]


def test_a_window_of_one_is_a_step_and_of_zero_is_none() -> None:
    assert shown(picture(GREY, WindowCenter=1000, WindowWidth=1)) == [[0, 255, 255, 255]]
    made = rendered(picture(GREY, WindowCenter=1000, WindowWidth=0))
    assert made.notes == (("window without width", "percentiles were taken instead"),)
    assert made.pictures[0][0, 0] == 0 and made.pictures[0][0, 3] == 255


def test_a_voi_table_is_looked_up_by_modality_values() -> None:
    table = item(LUTDescriptor=[4, -10, 8], LUTData=[0, 50, 200, 255])
    table["LUTDescriptor"].VR = "SS"
    made = picture(np.array([[0, 9, 10, 11, 12, 99]], U16), RescaleSlope=1, RescaleIntercept=-19)
    made.VOILUTSequence = [table]
    assert shown(made) == [[0, 0, 50, 200, 255, 255]]


def test_a_voi_table_may_write_a_negative_start_as_unsigned() -> None:
    table = item(LUTDescriptor=[3, 65_526, 16], LUTData=[0, 32_768, 65_535])
    made = picture(np.array([[-11, -10, -9, -8, 5]], I16), VOILUTSequence=[table])
    assert shown(made) == [[0, 0, 128, 255, 255]]


def test_a_modality_table_takes_the_rescale_place() -> None:
    table = item(LUTDescriptor=[4, 0, 16], LUTData=[0, 100, 400, 900], ModalityLUTType="US")
    made = picture(
        np.array([[0, 1, 2, 3]], U16), ModalityLUTSequence=[table], WindowCenter=450, WindowWidth=901
    )
    assert shown(made) == [[0, 28, 113, 255]]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [[0, 62, 125, 255]]),
        ({"PhotometricInterpretation": "MONOCHROME1"}, [[255, 193, 130, 0]]),
        ({"PresentationLUTShape": "INVERSE"}, [[255, 193, 130, 0]]),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
            [[255, 193, 130, 0]],
        ),
    ],
)
def test_white_for_the_least_value_is_turned(attributes: dict, expected: list) -> None:
    assert shown(picture(GREY, **WINDOW, **attributes)) == expected


def test_the_inversion_comes_after_the_window() -> None:
    # Inverting the values first would show 1000 with a window that was meant for 1000.
    made = picture(GREY, PhotometricInterpretation="MONOCHROME1", WindowCenter=1000, WindowWidth=1001)
    assert shown(made) == [[255, 127, 0, 0]]


def test_padding_is_black_and_no_part_of_the_statistics() -> None:
    values = np.array([[0, 0, 0, 0, 1000, 1100, 1200]], U16)
    assert shown(picture(values), "mr-minmax") == [[0, 0, 0, 0, 212, 234, 255]]
    assert shown(picture(values, PixelPaddingValue=0), "mr-minmax") == [[0, 0, 0, 0, 0, 128, 255]]


def test_padding_stays_black_when_the_picture_is_inverted() -> None:
    made = picture(GREY, **WINDOW, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert shown(made) == [[0, 193, 130, 0]]


def test_a_padding_range_and_an_unsigned_writing_are_understood() -> None:
    values = np.array([[-2000, -1990, -1000, 0, 1000]], I16)
    made = picture(values, PixelPaddingValue=63_536)  # -2000 as unsigned
    assert shown(made, "mr-minmax") == [[0, 0, 84, 170, 255]]
    made = picture(values, PixelPaddingValue=63_536, PixelPaddingRangeLimit=63_546)
    assert shown(made, "mr-minmax") == [[0, 0, 0, 128, 255]]


def test_padding_of_a_lossy_picture_is_found_beside_its_value() -> None:
    values = np.full((64, 64), -2000, I16)
    values[16:48, 16:48] = np.linspace(0, 1000, 32, dtype=I16)
    codes = imagecodecs.jpeg2k_encode(values, level=80, codecformat="j2k", reversible=False)
    made = picture(values, "1.2.840.10008.1.2.4.91", encapsulate([codes]), PixelPaddingValue=-2000)
    stored = decode(made).values[0]
    assert (stored[:8] != -2000).any()  # the codec has smeared it
    made = rendered(made, "mr-minmax").pictures[0]
    assert (made[:, :4] == 0).all()
    assert 90 < made[32, 32] < 165  # 212 with the padding among the values


def test_magnetic_resonance_is_spread_over_all_frames() -> None:
    values = np.array([[[0, 120]], [[200, 1000]]], U16)
    made = rendered(picture(values, NumberOfFrames=2, SOPClassUID=MR, Modality="MR"), "mr-minmax")
    assert [one.tolist() for one in made.pictures] == [[[0, 31]], [[51, 255]]]


def test_the_equalised_radiograph_inverts_first() -> None:
    values = np.array([[0, 100, 200, 200]], U16)
    assert shown(picture(values), "cxr-equalised") == [[0, 85, 255, 255]]
    assert shown(picture(values, PhotometricInterpretation="MONOCHROME1"), "cxr-equalised") == [
        [255, 128, 0, 0]
    ]


def test_a_palette_gives_colours_by_its_upper_byte() -> None:
    def entries(*values: int) -> bytes:
        return np.array(values, "<u2").tobytes()

    made = picture(
        np.array([[0, 1, 2, 2]], U8),
        PhotometricInterpretation="PALETTE COLOR",
        RedPaletteColorLookupTableDescriptor=[3, 0, 16],
        GreenPaletteColorLookupTableDescriptor=[3, 0, 16],
        BluePaletteColorLookupTableDescriptor=[3, 0, 16],
        RedPaletteColorLookupTableData=entries(0, 65_280, 32_768),
        GreenPaletteColorLookupTableData=entries(0, 0, 65_280),
        BluePaletteColorLookupTableData=entries(256, 0, 0),
    )
    assert shown(made) == [[[0, 0, 1], [255, 0, 0], [128, 255, 0], [128, 255, 0]]]


def test_luminance_and_chrominance_become_red_green_and_blue() -> None:
    values = np.array([[[76, 85, 255], [150, 44, 21]]], U8)
    assert shown(picture(values, PhotometricInterpretation="YBR_FULL")) == [[[254, 0, 0], [0, 255, 1]]]


def test_halved_chrominance_is_spread_over_its_two_pixels() -> None:
    data = bytes([76, 76, 85, 255])  # Y1 Y2 Cb Cr
    made = picture(np.zeros((1, 2, 3), U8), data=data, PhotometricInterpretation="YBR_FULL_422")
    assert shown(made) == [[[254, 0, 0], [254, 0, 0]]]


def test_planes_are_not_pixels() -> None:
    data = bytes([255, 0, 0, 255, 0, 0])  # red plane, green plane, blue plane of two pixels
    made = picture(np.zeros((1, 2, 3), U8), data=data, PlanarConfiguration=1)
    assert shown(made) == [[[255, 0, 0], [0, 255, 0]]]


def test_deep_colours_show_their_upper_bits() -> None:
    values = np.array([[[65_535, 32_768, 255], [256, 0, 4095]]], U16)
    assert shown(picture(values)) == [[[255, 128, 0], [1, 0, 15]]]
    assert shown(picture(values & 4095, BitsStored=12, HighBit=11)) == [[[255, 0, 15], [16, 0, 255]]]


def test_big_endian_values_are_turned() -> None:
    values = np.array([[1, 256]], I16)
    stored = decode(picture(values, "1.2.840.10008.1.2.2")).values
    assert stored.tolist() == [[[1, 256]]]
    assert stored.dtype.isnative


def test_unused_bits_are_cleared() -> None:
    values = np.array([[0xF001, 0x0FFF]], U16)
    assert decode(picture(values, BitsStored=12, HighBit=11)).values.tolist() == [[[1, 4095]]]
    signed = picture(values.view(I16), BitsStored=12, HighBit=11)
    assert decode(signed).values.tolist() == [[[1, -1]]]


def test_an_unsigned_codestream_of_signed_values_keeps_its_sign() -> None:
    codes = imagecodecs.jpeg2k_encode(
        np.full((8, 8), 6192, U16), codecformat="j2k", reversible=True, bitspersample=13
    )
    made = picture(
        np.zeros((8, 8), I16), "1.2.840.10008.1.2.4.90", encapsulate([codes]), BitsStored=13, HighBit=12
    )
    assert decode(made).values[0, 0, 0] == -2000


@pytest.mark.parametrize(("attributes", "expected"), [({}, [2, 2]), ({"NumberOfFrames": 3}, [3, 2, 2])])
def test_frames_come_first(attributes: dict, expected: list[int]) -> None:
    values = np.zeros((3, 2, 2) if attributes else (2, 2), U16)
    assert list(decode(picture(values, **attributes)).values.shape)[-len(expected) :] == expected


def test_high_throughput_jpeg_2000_is_read() -> None:
    values = np.arange(64 * 64, dtype=U16).reshape(64, 64)
    codes = imagecodecs.htj2k_encode(values, reversible=True)
    made = picture(values, "1.2.840.10008.1.2.4.201", encapsulate([codes]))
    assert np.array_equal(decode(made).values[0], values)


def test_a_subsampled_codestream_is_no_rgb_whatever_the_header_says() -> None:
    colour = np.zeros((16, 16, 3), U8)
    colour[:] = (200, 30, 60)
    codes = imagecodecs.jpeg8_encode(colour, level=95, subsampling="420")
    at = codes.index(b"\xff\xe0")  # without the JFIF marker nothing else tells
    length = int.from_bytes(codes[at + 2 : at + 4], "big")
    codes = codes[:at] + codes[at + 2 + length :]
    made = rendered(picture(colour, "1.2.840.10008.1.2.4.50", encapsulate([codes])))
    assert ("colours corrected", "the header says RGB, the codestream holds YCbCr") in made.notes
    assert np.abs(made.pictures[0].astype(int) - (200, 30, 60)).max() <= 4


def test_pixels_become_square() -> None:
    values = np.zeros((4, 4), U16)
    values[0, 0] = 1
    assert rendered(picture(values, PixelSpacing=[2.0, 1.0])).pictures[0].shape == (8, 4)
    assert rendered(picture(values, PixelAspectRatio=[1, 2])).pictures[0].shape == (4, 8)
    assert rendered(picture(values, PixelSpacing=[1.0, 1.0])).pictures[0].shape == (4, 4)
    far = rendered(picture(values, PixelAspectRatio=[1, 99]))
    assert far.pictures[0].shape == (4, 4)
    assert far.notes == (("pixel aspect left as it is", "the header's ratio is beyond 1 to 10"),)


def test_overlays_are_left_out_and_told() -> None:
    made = picture(np.zeros((2, 2), U16), **WINDOW)
    made.add_new(0x60000010, "US", 2)
    made.add_new(0x60003000, "OB", b"\xff\xff")
    out = rendered(made)
    assert out.pictures[0].tolist() == [[0, 0], [0, 0]]
    assert out.notes == (("overlay left out", ""),)


def enhanced_ct() -> object:
    values = np.full((3, 2, 2), 100, U16)
    groups = [
        item(
            PixelValueTransformationSequence=[
                item(RescaleSlope=1 + index, RescaleIntercept=-1024, RescaleType="HU")
            ],
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2.5 * index])],
            FrameVOILUTSequence=[item(WindowCenter=-900 + 100 * index, WindowWidth=301)],
        )
        for index in range(3)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.5], SliceThickness=2.5)],
    )
    return ct(
        values,
        NumberOfFrames=3,
        SOPClassUID=ENHANCED_CT,
        RescaleSlope=None,
        RescaleIntercept=None,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )


def test_every_frame_of_an_enhanced_object_has_its_own_rescale_and_window() -> None:
    made = enhanced_ct()
    units = [modality_transform(made, frame, False).apply(np.array([100])).item() for frame in range(3)]
    assert units == [-924, -824, -724]
    assert [one[0, 0] for one in rendered(made).pictures] == [108, 108, 108]
    assert [one[0, 0] for one in rendered(made, "ct-wide").pictures] == [10, 22, 35]
    assert group_of_frame(made, 2, "PixelMeasuresSequence").PixelSpacing == [0.5, 0.5]


def test_highdicom_finds_the_same_units_in_an_enhanced_object() -> None:
    made = enhanced_ct()
    for keyword, value in {
        "ContentDate": "20260101", "ContentTime": "000000", "InstanceNumber": 1, "FrameOfReferenceUID": "1.2.3.7",
        "PatientBirthDate": "", "PatientSex": "", "StudyDate": "", "StudyTime": "", "StudyID": "", "SeriesNumber": 1,
        "AccessionNumber": "", "ReferringPhysicianName": "", "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    }.items():  # fmt: skip
        setattr(made, keyword, value)
    image = highdicom.Image.from_dataset(made, copy=True)
    theirs = [image.get_frame(frame + 1, apply_modality_transform=True) for frame in range(3)]
    ours = [modality_transform(made, frame, False).apply(decode(made).values[frame]) for frame in range(3)]
    assert np.array_equal(np.stack(theirs), np.stack(ours))


def test_every_slice_of_a_pet_has_its_own_slope() -> None:
    shows = {
        "SOPClassUID": PET,
        "Modality": "PT",
        "RescaleIntercept": 0,
        "WindowCenter": 100,
        "WindowWidth": 201,
    }
    greys = [shown(picture(np.array([[100]], U16), RescaleSlope=slope, **shows)) for slope in (0.5, 1, 1.5)]
    assert greys == [[[64]], [[128]], [[192]]]


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleType": "US"},
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"Modality": "MR", "SOPClassUID": MR},
        {"SOPClassUID": CAPTURE},
    ],
)
def test_presets_do_not_touch_what_is_not_in_hounsfield_units(attributes: dict) -> None:
    with pytest.raises(Refused, match="values are not Hounsfield units: profile ct-abdomen@1"):
        shown(ct(np.zeros((2, 2), U16), **attributes), "ct-abdomen")
    assert describe(ct(np.zeros((2, 2), U16), SOPClassUID=CT)).photometric == "MONOCHROME2"


def test_wide_values_need_no_table() -> None:
    made = picture(np.array([[0, 70_000, 140_000]], np.uint32), SOPClassUID=CR)
    assert shown(made, "mr-minmax") == [[0, 128, 255]]


def test_profiles_are_versioned_and_checked() -> None:
    assert all(name.rpartition("@")[2].isdigit() for name in (one.name for one in shipped().values()))
    assert choose_profiles(None)["CT"].name == "ct-abdomen@1"
    assert choose_profiles({"CT": {"windows": [[0, 80]], "unit": "HU"}})["CT"].windows == ((0.0, 80.0),)
    for wrong, said in (
        ("ct-abdomn", "did you mean 'ct-abdomen'"),
        ("ct-abdomen@9", "isn't what this medkit has"),
        ({"CT": {"windows": [[80, 0]]}}, "low below high"),
        ({"CT": {"windows": [[0, 80]], "equalise": True}}, "needs one of"),
        ({"CT": {"window": [[0, 80]]}}, "has no key window"),
    ):
        with pytest.raises(DataError, match=said):
            choose_profiles(wrong)
