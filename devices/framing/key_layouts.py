"""Which character a key makes, for the country settings that scanners have. Pure tables.

A keyboard-wedge scanner types as if a desktop of one country stood behind it, and the till, which reads key codes, has
to use the same table; what layout the till itself has does not matter. The tables follow the layouts of Windows, which
is what scanner makers aim at; where X11 has a character on a level that Windows leaves empty, it is not in them.

A table lists four rows of keys, each as on a European board: digits with the key left of them, then three rows of
letters; the last row begins with the key between left shift and Z. NUL is a key that makes nothing. `dead` names, for
each level, the keys that make nothing by themselves but put an accent on what follows.
"""

from typing import Literal

import msgspec

LayoutName = Literal["us", "uk", "de", "fr", "es", "it", "pt", "be", "ch", "ch-fr", "se", "no", "dk", "jp"]

PLAIN, SHIFT, ALTGR = range(3)
# Key codes of linux/input-event-codes.h, in the order of the rows.
ROWS = ((41, *range(2, 14)), range(16, 28), (*range(30, 41), 43), (86, *range(44, 54)))
KEYS = tuple(code for row in ROWS for code in row)
KEY_SPACE, KEY_TAB, KEY_RO, KEY_YEN = 57, 15, 89, 124
KEYPAD = dict(zip((*range(71, 84), 55, 98, 117, 121), "789-456+1230.*/=,", strict=True))
KEYPAD_DIGITS = frozenset(code for code, char in KEYPAD.items() if char.isdigit())
ACCENTS = {"^": "\u0302", "´": "\u0301", "`": "\u0300", "¨": "\u0308", "~": "\u0303"}


class Layout(msgspec.Struct, frozen=True):
    chars: dict[tuple[int, int], str]  # (key code, level) -> character
    dead: frozenset[tuple[int, int]]


def _layout(plain: str, shift: str, altgr: str = "", dead: tuple[str, str, str] = ("", "", "")) -> Layout:
    """`altgr`: pairs of what the key makes plain and with AltGr."""
    assert len(plain) == len(shift) == len(KEYS)
    code_of = dict(zip(plain, KEYS, strict=True))
    levels = (
        dict(zip(KEYS, plain, strict=True)),
        dict(zip(KEYS, shift, strict=True)),
        {code_of[pair[0]]: pair[1] for pair in altgr.split()},
    )
    chars = {(code, level): char for level in range(3) for code, char in levels[level].items() if char != "\0"}
    marked = frozenset(key for key, char in chars.items() if char in dead[key[1]])
    for level in (PLAIN, SHIFT):
        chars[KEY_SPACE, level] = " "
        chars[KEY_TAB, level] = "\t"
    return Layout(chars, marked)


def _japanese() -> Layout:
    """The 106-key board: no key between shift and Z, but one more beside right shift and one beside backspace."""
    layout = _layout(
        "\x001234567890-^" + "qwertyuiop@[" + "asdfghjkl;:]" + "\x00zxcvbnm,./",
        "\x00!\"#$%&'()\x00=~" + "QWERTYUIOP`{" + "ASDFGHJKL+*}" + "\x00ZXCVBNM<>?",
    )
    more = {(KEY_RO, PLAIN): "\\", (KEY_RO, SHIFT): "_", (KEY_YEN, PLAIN): "\\", (KEY_YEN, SHIFT): "|"}
    return Layout(layout.chars | more, layout.dead)


def _swiss(umlauts: str, accents: str) -> Layout:
    """The German and the French board differ in which three letters need shift."""
    u, o, a, e_grave, e_acute, a_grave = list(umlauts + accents)
    return _layout(
        f"§1234567890'^qwertzuiop{u}¨asdfghjkl{o}{a}$<yxcvbnm,.-",
        f'°+"*ç%&/()=?`QWERTZUIOP{e_grave}!ASDFGHJKL{e_acute}{a_grave}£>YXCVBNM;:_',
        f"1¦ 2@ 3# 6¬ 7| 8¢ '´ ^~ {u}[ ¨] {a}{{ $}} <\\ e€",
        ("^¨", "`", "´~"),
    )


LAYOUTS: dict[LayoutName, Layout] = {
    "us": _layout(
        "`1234567890-=" + "qwertyuiop[]" + "asdfghjkl;'\\" + "<zxcvbnm,./",
        "~!@#$%^&*()_+" + "QWERTYUIOP{}" + 'ASDFGHJKL:"|' + ">ZXCVBNM<>?",
    ),
    "uk": _layout(
        "`1234567890-=" + "qwertyuiop[]" + "asdfghjkl;'#" + "\\zxcvbnm,./",
        '¬!"£$%^&*()_+' + "QWERTYUIOP{}" + "ASDFGHJKL:@~" + "|ZXCVBNM<>?",
        "`¦ 4€ eé uú ií oó aá",
    ),
    "de": _layout(
        "^1234567890ß´" + "qwertzuiopü+" + "asdfghjklöä#" + "<yxcvbnm,.-",
        '°!"§$%&/()=?`' + "QWERTZUIOPÜ*" + "ASDFGHJKLÖÄ'" + ">YXCVBNM;:_",
        "2² 3³ 7{ 8[ 9] 0} ß\\ q@ e€ +~ <| mµ",
        ("^´", "`", ""),
    ),
    "fr": _layout(
        "²&é\"'(-è_çà)=" + "azertyuiop^$" + "qsdfghjklmù*" + "<wxcvbn,;:!",
        "\x001234567890°+" + "AZERTYUIOP¨£" + "QSDFGHJKLM%µ" + ">WXCVBN?./§",
        "é~ \"# '{ ([ -| è` _\\ ç^ à@ )] =} e€ $¤",
        ("^", "¨", "~`"),
    ),
    "es": _layout(
        "º1234567890'¡" + "qwertyuiop`+" + "asdfghjklñ´ç" + "<zxcvbnm,.-",
        'ª!"·$%&/()=?¿' + "QWERTYUIOP^*" + "ASDFGHJKLÑ¨Ç" + ">ZXCVBNM;:_",
        "º\\ 1| 2@ 3# 4~ 5€ 6¬ e€ `[ +] ´{ ç}",
        ("`´", "^¨", "~"),
    ),
    "it": _layout(
        "\\1234567890'ì" + "qwertyuiopè+" + "asdfghjklòàù" + "<zxcvbnm,.-",
        '|!"£$%&/()=?^' + "QWERTYUIOPé*" + "ASDFGHJKLç°§" + ">ZXCVBNM;:_",
        "5€ e€ è[ +] ò@ à#",
    ),
    "pt": _layout(
        "\\1234567890'«" + "qwertyuiop+´" + "asdfghjklçº~" + "<zxcvbnm,.-",
        '|!"#$%&/()=?»' + "QWERTYUIOP*`" + "ASDFGHJKLÇª^" + ">ZXCVBNM;:_",
        "2@ 3£ 4§ 5€ 7{ 8[ 9] 0} e€ +¨",
        ("´~", "`^", "¨"),
    ),
    "be": _layout(
        "²&é\"'(§è!çà)-" + "azertyuiop^$" + "qsdfghjklmùµ" + "<wxcvbn,;:=",
        "³1234567890°_" + "AZERTYUIOP¨*" + "QSDFGHJKLM%£" + ">WXCVBN?./+",
        '&| é@ "# §^ ç{ à} e€ ^[ $] ù´ µ` <\\ =~',
        ("^", "¨", "´`~"),
    ),
    "ch": _swiss("üöä", "èéà"),
    "ch-fr": _swiss("èéà", "üöä"),
    "se": _layout(
        "§1234567890+´" + "qwertyuiopå¨" + "asdfghjklöä'" + "<zxcvbnm,.-",
        '½!"#¤%&/()=?`' + "QWERTYUIOPÅ^" + "ASDFGHJKLÖÄ*" + ">ZXCVBNM;:_",
        "2@ 3£ 4$ 5€ 7{ 8[ 9] 0} +\\ e€ ¨~ <| mµ",
        ("´¨", "`^", "~"),
    ),
    "no": _layout(
        "|1234567890+\\" + "qwertyuiopå¨" + "asdfghjkløæ'" + "<zxcvbnm,.-",
        '§!"#¤%&/()=?`' + "QWERTYUIOPÅ^" + "ASDFGHJKLØÆ*" + ">ZXCVBNM;:_",
        "2@ 3£ 4$ 5€ 7{ 8[ 9] 0} \\´ e€ ¨~ mµ",
        ("¨", "`^", "´~"),
    ),
    "dk": _layout(
        "½1234567890+´" + "qwertyuiopå¨" + "asdfghjklæø'" + "<zxcvbnm,.-",
        '§!"#¤%&/()=?`' + "QWERTYUIOPÅ^" + "ASDFGHJKLÆØ*" + ">ZXCVBNM;:_",
        "2@ 3£ 4$ 5€ 7{ 8[ 9] 0} ´| e€ ¨~ <\\ mµ",
        ("´¨", "`^", "~"),
    ),
    "jp": _japanese(),
}
