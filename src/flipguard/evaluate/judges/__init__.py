"""Ways to grade answers, one file each: a scorer named as its file, and two constants.

`GRADE` says whether its 1.0 and 0.0 mean right and wrong ("correct") or any number goes ("score"); `UNGRADED` says what
it means when it returns None.
"""

JUDGES = ("exact_match",)
