"""Column names and words of public collections, and what HAM10000 calls the same things: the one place for each.

A word of a diagnosis is read as the set of what it may be: one of our seven classes, or OTHER for anything else. Thus
"nevus" is {nv}, "benign" anything that is neither melanoma nor basal cell carcinoma, and what two columns say of one
image is the intersection: empty if they contradict each other.

The ISIC archive's words are those of its own hierarchy (PyPI ``isic-metadata``). A term that is not listed here is what
the nearest listed term above it is, so that new terms need no change. HAM10000's classes are as its authors define
them: akiec includes squamous cell carcinoma in situ (Bowen's disease), bkl solar lentigines and lichen planus-like
keratoses, vasc angiomas, angiokeratomas, pyogenic granulomas and hemorrhages.
"""

import re
from functools import cache

from dermdistill.core.classes import CLASSES, NAMES

COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]  # of HAM10000
UNKNOWN = {"dx_type": "", "age": "", "sex": "unknown", "localization": "unknown"}  # as HAM10000 writes it
BLANKS = {"", "-", "?", "na", "n/a", "nan", "<na>", "none", "null", "nil", "unknown"}  # ways to leave a cell empty

# Names that public collections use, in lower case, anything but letters and digits as "_"; the first that is there.
SYNONYMS = {
    "image_id": ("image_id", "image", "isic_id", "img_id", "image_name", "filename", "file_name", "file", "image_path",
                 "derm", "name"),
    "lesion_id": ("lesion_id", "lesion"),
    "patient_id": ("patient_id", "patient"),
    "dx_type": ("dx_type", "diagnosis_confirm_type", "confirmation", "biopsed"),
    "age": ("age", "age_approx", "patient_age"),
    "sex": ("sex", "gender"),
    "localization": ("localization", "location", "anatom_site_general", "anatom_site_general_challenge", "site",
                     "body_site", "region"),
    "part": ("part", "split", "subset", "partition"),
}  # fmt: skip
DIAGNOSIS = ("dx", "diagnosis", "diagnostic", "diag", "label", "class", "clinical_diagnosis")  # all that are there
MELANOMA_OR_NOT = ("melanoma", "is_melanoma")
MALIGNANT_OR_NOT = ("benign_malignant", "target")  # of melanoma only in ISIC 2020, which calls its ids image_name
LEVEL = re.compile(r"(diagnosis|iddx)_[1-5]")  # of the ISIC archive's hierarchy
SITE_LEVEL = re.compile(r"anatom_site_[1-5]")

SITES = {"abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "lower extremity", "neck",
         "scalp", "trunk", "upper extremity"}  # fmt: skip  # of HAM10000
SEXES = {"m": "male", "f": "female"}
CONFIRMATIONS = {  # the challenge's kinds of ground truth, PAD-UFES-20's "biopsed" → HAM10000's dx_type
    "histopathology": "histo", "true": "histo", "false": "",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}  # fmt: skip
PARTS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "test": "holdout"}

OTHER = "other"  # a diagnosis outside our seven
REST = "rest"  # no melanoma, which is all that a truth of melanoma or not says
ANYTHING = frozenset((*CLASSES, OTHER))
NO_MELANOMA = ANYTHING - {"mel"}
BENIGN = NO_MELANOMA - {"bcc"}
MALIGNANT = ANYTHING - {"nv", "bkl", "vasc", "df"}
YES, NO = {"1", "true", "yes", "x", "malignant", "melanoma"}, {"0", "false", "no", "", "benign"}


def _known(terms: str, meaning: str | frozenset[str]) -> dict[str, frozenset[str]]:
    """Each of the ``terms``, separated by semicolons → what it may be."""
    meanings = frozenset((meaning,)) if isinstance(meaning, str) else meaning
    return {_plain(term): meanings for term in terms.split(";")}


def _plain(word: str) -> str:
    """Letters and digits in lower case, single blanks between: ``benign_keratosis-like_lesions`` as it is spoken."""
    return re.sub(r"[\W_]+", " ", re.sub("['’]", "", word.casefold())).strip()


WORDS: dict[str, frozenset[str]] = {}
for _dx, _terms in {
    "nv": "nev; nevus; naevus; nevi; melanocytic nevi; common nevus; atypical nevus; blue nevus; clark nevus; combined "
    "nevus; congenital nevus; dermal nevus; dysplastic nevus; recurrent nevus; reed or spitz nevus; reed nevus; "
    "spitz nevus; halo nevus; nevus spilus; benign nevus",
    "mel": "malignant melanoma; melanoma in situ; melanoma invasive; melanoma metastasis; lentigo maligna; "
    "lentigo maligna melanoma; melanoma (less than 0.76 mm); melanoma (0.76 to 1.5 mm); "
    "melanoma (more than 1.5 mm); malignant melanocytic proliferations (melanoma)",
    "bkl": "benign keratosis-like lesion; benign keratosis-like lesions; pigmented benign keratosis; sek; sk; "
    "seborrheic keratosis; seborrheic keratoses; solar lentigo; lentigo; lichenoid keratosis; "
    "lichen planus like keratosis",  # a bare "lentigo" is Derm7pt's
    "bcc": "basal cell carcinomas",
    "akiec": "actinic keratosis; actinic keratoses; solar or actinic keratosis; ack; ak; bowen's disease; "
    "bowen disease; actinic keratoses and intraepithelial carcinoma; squamous cell carcinoma in situ; "
    "actinic keratoses and intraepithelial carcinoma / bowen's disease; "
    "actinic keratoses and intraepithelial carcinomae",
    "vasc": "vascular lesions; angioma; hemangioma; angiokeratoma; pyogenic granuloma; hemorrhage; "
    "hemorrhagic lesions; benign soft tissue proliferations - vascular",
    "df": "dermatofibromas",
    OTHER: "unk; none of the others; scc; squamous cell carcinoma; squamous cell carcinoma invasive; adnexal tumor; "
    "cafe-au-lait macule; ephelis; lentigo nos; lentigo simplex; merkel cell carcinoma; mucosal melanosis; "
    "melanosis; miscellaneous; clear cell acanthoma; acrochordon; angiofibroma or fibrous papule; neurofibroma; "
    "scar; sebaceous adenoma; sebaceous hyperplasia; verruca; wart; epidermal nevus; nevus sebaceus; "
    "nevus comedonicus; nevus anemicus; keratoacanthoma; cyst; cysts; benign - other; "
    "benign epidermal proliferations; benign melanocytic proliferations; "
    "collision - only benign proliferations; flat melanotic pigmentations - not melanocytic nevus; "
    "indeterminate epidermal proliferations; malignant epidermal proliferations; merkel cell proliferation; "
    "skin metastasis of internal solid cancer - non-hematological",
}.items():
    WORDS |= _known(f"{_dx}; {NAMES.get(_dx, _dx)}; {_terms}", _dx)
WORDS |= _known("no melanoma; not melanoma; non-melanoma; nonmelanoma; rest", NO_MELANOMA)
WORDS |= _known("benign", BENIGN) | _known("malignant; collision - at least one malignant proliferation", MALIGNANT)
WORDS |= _known(
    "indeterminate; indeterminate melanocytic proliferations; atypical spitz tumor; aimp; atypical melanocytic "
    "proliferation; atypical intraepithelial melanocytic proliferation",
    frozenset(("mel", "nv", "akiec", OTHER)),
)
BRANCHES = (  # how the names of whole branches begin, none of which is of our seven
    "benign adnexal epithelial", "benign soft tissue", "malignant adnexal epithelial", "malignant soft tissue",
    "lymphocytic proliferations", "langerhans cell", "mast cell", "inflammatory or infectious", "exogenous",
)  # fmt: skip


@cache
def may_be(word: str) -> frozenset[str]:
    """What a word of a diagnosis may be, of CLASSES and OTHER; ANYTHING for a word that is not known, or none.

    A colon parts the levels of a hierarchy, of which the deepest known one counts; a comma parts a term from its kind
    (``Nevus, Spitz``), unless one of the kinds is another diagnosis.
    """
    for term in reversed(word.split(":")):
        whole = _plain(term)
        if whole in WORDS:
            return WORDS[whole]
        if whole.startswith(BRANCHES):
            return frozenset((OTHER,))
        plain, *kinds = (_plain(part) for part in term.split(","))
        meaning = WORDS.get(plain, ANYTHING)
        others = any(WORDS.get(kind, meaning) != meaning for kind in kinds)
        if meaning != ANYTHING and not others and ("mel" in meaning or "melanom" not in whole):
            return meaning
    return ANYTHING


def column(name: object) -> str:
    """A column's name as :data:`SYNONYMS` spells it.

    The second of two equal names, ``dx.1`` for pandas, is ``dx``; the archive's ``metadata.clinical.sex`` is ``sex``.
    """
    plain = re.sub(r"[\W_]+", "_", re.sub(r"\.\d+$", "", str(name).strip().lower()))
    return re.sub("^meta(data)?_(clinical|acquisition)_", "", plain)


def filled(value: str) -> str:
    """``value`` without blanks around it; empty if it is one of BLANKS."""
    value = value.strip()
    return "" if value.casefold() in BLANKS else value


def age(value: str) -> str:
    """An age in years as a number is written: the archive's ``85+`` is 85, a decimal comma a point."""
    return re.sub(r"^(\d+)(,\d+)?\+?$", lambda match: match[1] + (match[2] or "").replace(",", "."), filled(value))


def part(value: str) -> str:
    """A part of a split as it is called here: ``test`` is holdout."""
    value = filled(value).casefold()
    return PARTS.get(value, value)
