"""DECIMAL as the servers pack it: in a row image, and inside binary JSON."""


class DecimalColumn:
    """A DECIMAL(precision, scale).

    Nine digits take four bytes. What is left at the far end of the whole part and of the fraction
    takes fewer. The first bit is the sign, inverted; a negative number has all its bits inverted.
    """

    _BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)  # by number of digits

    def __init__(self, precision: int, scale: int) -> None:
        self._scale = scale
        whole = precision - scale
        first = whole % 9
        last = scale % 9
        groups = [first] * (first > 0) + [9] * (whole // 9 + scale // 9) + [last] * (last > 0)
        self._groups = [(digits, self._BYTES[digits]) for digits in groups]
        self.size = sum(size for _, size in self._groups)

    def text(self, raw: bytes) -> str:
        """Return ``-0.50``: the declared digits behind the point, at least one before it."""
        negative = not raw[0] & 0x80
        bits = int.from_bytes(raw, "big") ^ 1 << 8 * self.size - 1
        if negative:
            bits ^= (1 << 8 * self.size) - 1
        digits = ""
        shift = 8 * self.size
        for count, size in self._groups:
            shift -= 8 * size
            digits += f"{bits >> shift & (1 << 8 * size) - 1:0{count}d}"
        point = len(digits) - self._scale
        whole = digits[:point]
        fraction = digits[point:]
        sign = "-" if negative and digits.strip("0") else ""
        return f"{sign}{whole.lstrip('0') or '0'}{'.' if fraction else ''}{fraction}"
