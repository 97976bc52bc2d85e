# SPDX-License-Identifier: GPL-3.0-or-later
"""The requirements without a test, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.requirement import Level, Requirement

MUST, MUST_NOT = Level.MUST, Level.MUST_NOT
SHOULD, SHOULD_NOT = Level.SHOULD, Level.SHOULD_NOT

PLATFORM = "of another platform than Linux"
AUTHOR = "asked of who writes config.json; a runtime meets a config.json that doesn't without error"
HARDWARE = (
    "needs a processor with Resource Director Technology and a mounted resctrl; ocirt's own tests"
    " use an imitated one, which other runtimes can't be given"
)
NO_RESCTRL = "without a mounted resctrl every intelRdt is refused, whatever is in it"


@dataclass(frozen=True, slots=True, order=True)
class Untested:
    """A requirement and why no test shows it."""

    what: Requirement
    why: str


def _config(chapter: str, sentence: int, level: Level, says: str, why: str) -> Untested:
    return Untested(Requirement("config.md", chapter, sentence, level, says), why)


def _linux(chapter: str, sentence: int, level: Level, says: str, why: str) -> Untested:
    return Untested(Requirement("config-linux.md", chapter, sentence, level, says), why)


def _image_annotations() -> list[Untested]:
    """The table of org.opencontainers.image annotations, two demands in each row."""
    names = ("os", "os.version", "os.features", "architecture", "variant", "author", "created")
    # Three sentences in a row: what it says; its value; where it is used.
    rows = [(name, 10 + 3 * index) for index, name in enumerate(names)] + [("stopSignal", 31)]
    found = []
    for name, first in rows:
        says = f"image.{name} has a value that an image may have"
        found.append(_config("Annotations", first + 1, MUST, says, AUTHOR))
        says = f"image.{name} is used as images are converted"
        found.append(_config("Annotations", first + 2, SHOULD, says, AUTHOR))
    return found


_RDT = (
    (2, MUST, "the process is written to the tasks file of its class"),
    (5, MUST_NOT, "without intelRdt no resctrl is touched"),
    (8, MUST, "closID / is the root of resctrl"),
    (17, MUST, "the rules below hold"),
    (18, MUST, "both schemas are written to schemata"),
    (19, MUST, "l3CacheSchema comes first, memBwSchema last"),
    (20, MUST, "one schema is written to schemata"),
    (21, MUST, "schemata is written to schemata"),
    (23, MUST_NOT, "without any of the three schemata isn't written"),
    (24, MUST, "without closID the class has the container's id"),
    (26, MUST, "a class that isn't there is made"),
    (27, MUST, "a class that is there must have the same schemata"),
    (28, MUST, "closID alone: the class must be there"),
    (29, MUST, "closID alone: the container is assigned to it, or an error"),
    (30, MUST, "a class that the runtime made is removed"),
    (31, MUST_NOT, "another one isn't removed"),
    (32, MUST, "enableMonitoring makes a monitoring group"),
    (33, MUST, "it has the container's id as name"),
    (34, MUST, "it is removed with the container"),
    (35, MUST, "failing to make it is an error"),
)

UNTESTED: tuple[Untested, ...] = (
    Untested(
        Requirement(
            "bundle.md",
            "Container Format",
            10,
            MUST,
            "config.json and the root file system are in one directory",
        ),
        AUTHOR,
    ),
    _config("Root", 3, MUST_NOT, "no root for Hyper-V", PLATFORM),
    _config("Root", 6, MUST, "path is a volume GUID path on Windows", PLATFORM),
    _config("Root", 9, SHOULD, "path is the conventional rootfs", AUTHOR),
    _config("Root", 12, MUST, "readonly isn't set on Windows", PLATFORM),
    _config("Mounts", 7, SHOULD, "destination is absolute", AUTHOR),
    _config("Mounts", 11, MUST, "destination is absolute on Windows", PLATFORM),
    _config("Mounts", 12, MUST_NOT, "no nested destinations on Windows", PLATFORM),
    _config("Mounts", 14, MUST, "destination is absolute on Solaris", PLATFORM),
    _config("Mounts", 17, MUST, "destination is absolute on other platforms", PLATFORM),
    _config("Mounts", 28, MUST, "ro is supported on Windows", PLATFORM),
    _config(
        "Linux mount options",
        80,
        MUST,
        "those options are as in mount(8)",
        "says again what the table's rows say, which are tested",
    ),
    _config(
        "Linux mount options",
        82,
        SHOULD,
        "custom options are as in mount(8)",
        "having custom options is the runtime's choice; which ones can't be known",
    ),
    _config("POSIX-platform Mounts", 8, SHOULD, "uidMappings come with idmap", AUTHOR),
    _config("POSIX-platform Mounts", 13, SHOULD, "gidMappings come with idmap", AUTHOR),
    _config("Platform-specific configuration", 10, MUST, "windows is set there", PLATFORM),
    _config("Annotations", 7, SHOULD, "keys are reversed domain names", AUTHOR),
    _config("Annotations", 8, MUST, "org.opencontainers keys are as described", AUTHOR),
    *_image_annotations(),
    _config(
        "Annotations",
        31,
        SHOULD,
        "stopSignal is what to kill a container with",
        "kill is told its signal by its caller",
    ),
    _config("Annotations", 34, MUST_NOT, "other specifications leave the keys alone", AUTHOR),
    _linux("Devices", 16, SHOULD_NOT, "no two devices have the same numbers", AUTHOR),
    _linux(
        "Control groups",
        3,
        MUST,
        "a cgroup that a check finds unfit is an error",
        "checking is the runtime's choice; what it finds unfit can't be known",
    ),
    _linux(
        "Cgroups Path",
        3,
        MUST,
        "cgroupsPath is absolute or relative",
        "no text is neither",
    ),
    _linux(
        "Cgroup ownership",
        15,
        MUST,
        "without the kernel's list three files are taken",
        "needs a kernel older than 4.15, which has no such list",
    ),
    _linux("IntelRdt", 10, SHOULD, "l3CacheSchema begins with L3:", NO_RESCTRL),
    _linux("IntelRdt", 10, SHOULD_NOT, "l3CacheSchema has a newline", NO_RESCTRL),
    _linux("IntelRdt", 12, MUST, "memBwSchema begins with MB:", NO_RESCTRL),
    _linux("IntelRdt", 12, MUST_NOT, "memBwSchema has a newline", NO_RESCTRL),
    _linux("IntelRdt", 15, MUST_NOT, "an entry of schemata has a newline", NO_RESCTRL),
    *[_linux("IntelRdt", at, level, says, HARDWARE) for at, level, says in _RDT],
)
