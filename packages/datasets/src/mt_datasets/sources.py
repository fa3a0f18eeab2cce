"""Where the data sets are published, and under which terms. Nothing here is ever downloaded."""

from __future__ import annotations

from mt_core.dataset import Source

_NYU = (
    "the pictures are those of NYU Depth V2, which asks to cite Silberman et al., ECCV 2012; no licence is known to us"
)
_CITYSCAPES = (
    "Cityscapes is for registered users and non-commercial purposes, and must not be passed on: "
    "https://www.cityscapes-dataset.com/license/"
)
_VOC = (
    "the photographs are from flickr, whose terms of use apply (http://host.robots.ox.ac.uk/pascal/VOC/voc2010); "
    "the pages of the annotations ask to cite their papers"
)
_MTAN = "https://github.com/lorenmt/mtan (README)"

NYUD_MT = Source(
    ("NYUD_MT.tgz",),
    "https://data.vision.ee.ethz.ch/kmaninis/share/MTL/NYUD_MT.tgz (the authors of ASTMT, CVPR 2019)",
    f"the authors of ASTMT state none for the files; {_NYU}",
)
NYUV2_OFFICIAL = Source(
    ("nyu_depth_v2_labeled.mat", "splits.mat"),
    "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
    _NYU,
)
NYUV2_MTAN = Source(("nyuv2.zip",), _MTAN, f"the authors of MTAN state none for the files; {_NYU}")
PASCAL_MT = Source(
    ("PASCAL_MT.tgz",),
    "https://data.vision.ee.ethz.ch/kmaninis/share/MTL/PASCAL_MT.tgz (the authors of ASTMT, CVPR 2019)",
    f"the authors of ASTMT state none for the files; {_VOC}",
)
CITYSCAPES_MTAN = Source(
    ("cityscapes2.zip (128 x 256)", "or cityscapes.zip (256 x 512)"),
    _MTAN,
    f"the authors of MTAN state none for the files; {_CITYSCAPES}",
)
CITYSCAPES_OFFICIAL = Source(
    (
        "leftImg8bit_trainvaltest.zip",
        "gtFine_trainvaltest.zip",
        "disparity_trainvaltest.zip",
        "camera_trainvaltest.zip",
    ),
    "https://www.cityscapes-dataset.com/downloads/",
    _CITYSCAPES,
)
