"""What reaches a terminal: nothing that steers it."""

import io
import json

import pytest

from distail.terminal import PrintableConsole, printable, printable_json


@pytest.mark.parametrize("text", ["\x1b]0;pwned\x07", "\x9b2J", "a\rb", "\x7f", "\u202eabc", "\x08", "\udcff"])
def test_what_steers_a_terminal_or_is_no_text_becomes_an_escape(text):
    shown = printable(f"<{text}>")
    assert shown.isprintable()
    assert "\\" in shown
    console = PrintableConsole(file=io.StringIO(), force_terminal=True, width=80)
    console.print(text, highlight=False, markup=False)
    assert shown[1:-1] in console.file.getvalue()


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "\x9b2J", "\x7f", "\u202eabc", "é 深い", "\U0001f600", "\U000e0041"])
def test_json_for_a_terminal_means_the_same(text):
    shown = printable_json(json.dumps({"name": text}, indent=2, ensure_ascii=False))
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == {"name": text}
    assert "é 深い" not in text or text in shown


def test_letters_of_any_script_lines_and_styles_stay():
    text = "é 深い\u3000学習\u00a0ß\tक्षि\n"
    assert printable(text) == text
    console = PrintableConsole(file=io.StringIO(), force_terminal=True, width=80, color_system="standard")
    console.print("bold", style="bold")
    assert "\x1b[1m" in console.file.getvalue()
