"""The seven diagnoses of HAM10000 in the one order used everywhere: logits, columns, tables.

Source: Tschandl, Rosendahl, Kittler, Sci. Data 5:180161 (2018), table 1.
"""

CLASSES = ("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df")
MELANOMA = CLASSES.index("mel")

NAMES = {
    "nv": "melanocytic nevus",
    "mel": "melanoma",
    "bkl": "benign keratosis",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis / Bowen's disease",
    "vasc": "vascular lesion",
    "df": "dermatofibroma",
}
