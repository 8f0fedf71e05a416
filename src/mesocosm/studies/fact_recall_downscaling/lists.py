"""Facts that a language model may know by heart, and countries that nobody knows: thirty of each."""

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London",
    "Portugal": "Lisbon", "Austria": "Vienna", "Greece": "Athens", "Ireland": "Dublin", "Russia": "Moscow",
    "Japan": "Tokyo", "China": "Beijing", "Egypt": "Cairo", "Turkey": "Ankara", "Hungary": "Budapest",
    "Sweden": "Stockholm", "Denmark": "Copenhagen", "Norway": "Oslo", "Finland": "Helsinki", "Poland": "Warsaw",
    "Belgium": "Brussels", "Cuba": "Havana", "Iran": "Tehran", "Iraq": "Baghdad", "Peru": "Lima",
    "Kenya": "Nairobi", "Thailand": "Bangkok", "Canada": "Ottawa", "Syria": "Damascus", "Ukraine": "Kyiv",
}  # fmt: skip
SYMBOLS = {
    "hydrogen": "H", "helium": "He", "lithium": "Li", "carbon": "C", "nitrogen": "N", "oxygen": "O", "neon": "Ne",
    "sodium": "Na", "magnesium": "Mg", "aluminum": "Al", "silicon": "Si", "phosphorus": "P", "sulfur": "S",
    "chlorine": "Cl", "argon": "Ar", "potassium": "K", "calcium": "Ca", "titanium": "Ti", "manganese": "Mn",
    "iron": "Fe", "cobalt": "Co", "nickel": "Ni", "copper": "Cu", "zinc": "Zn", "arsenic": "As", "silver": "Ag",
    "iodine": "I", "gold": "Au", "lead": "Pb", "uranium": "U",
}  # fmt: skip
INVENTED = (
    "Zorvia", "Melund", "Trakos", "Bavelia", "Quorin", "Ostrand", "Felmark", "Ilvenia", "Dorush", "Kespar", "Nimrath",
    "Ulbania", "Wexoria", "Yarvane", "Sorlak", "Pelonia", "Grunmar", "Tessaly", "Vodrun", "Ambrisk", "Carthane",
    "Lundova", "Harvek", "Ismeria", "Joravia", "Rendahl", "Orwenia", "Stavonia", "Brelland", "Maruvia",
)  # fmt: skip
