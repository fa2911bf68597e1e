"""Column names and words of public collections, and what HAM10000 calls the same things."""

from dermdistill.core.classes import NAMES

COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]  # of HAM10000
UNKNOWN = {"dx_type": "", "age": "", "sex": "unknown", "localization": "unknown"}  # as HAM10000 writes it

# Names that public collections use, in lower case, anything but letters and digits as "_".
SYNONYMS = {
    "image_id": ("image_id", "image", "isic_id", "img_id", "image_name", "filename", "file_name", "file"),
    "lesion_id": ("lesion_id", "lesion"),
    "patient_id": ("patient_id", "patient"),
    "dx": ("dx", "diagnosis", "diagnostic", "label", "class", "target"),
    "dx_type": ("dx_type", "diagnosis_confirm_type", "confirmation"),
    "age": ("age", "age_approx", "patient_age"),
    "sex": ("sex", "gender"),
    "localization": ("localization", "location", "anatom_site_general", "site", "body_site", "region"),
}
DIAGNOSES = {name.lower(): dx for dx, name in NAMES.items()} | {
    "nevus": "nv", "nev": "nv", "melanocytic nevi": "nv",
    "benign keratosis-like lesions": "bkl", "seborrheic keratosis": "bkl", "sek": "bkl", "solar lentigo": "bkl",
    "lichenoid keratosis": "bkl", "actinic keratosis": "akiec", "ack": "akiec", "ak": "akiec",
    "bowen's disease": "akiec", "basal cell carcinoma": "bcc", "vascular lesions": "vasc",
}  # fmt: skip
SEXES = {"m": "male", "f": "female", "": "unknown"}
CONFIRMATIONS = {  # the challenge's kinds of ground truth → HAM10000's dx_type
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}
