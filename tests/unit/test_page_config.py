"""`[page]` and `[receipt]` of a till's configuration: what is wrong is named, with the place and the likely word."""

from pathlib import Path

import pytest

from devices.config import ConfigFault, parse_config
from devices.page_config import PAGE_LISTEN

TILL = 'gateways = ["https://gateway.example"]\nterminal = 7\nstate_directory = "state"\n'
PATH = Path("/etc/tillgate/terminal.toml")


def test_without_them_there_is_no_page_and_no_slip() -> None:
    config = parse_config(TILL.encode(), PATH)
    assert (config.page, config.receipt) == (None, None)


def test_a_page_is_for_this_machine_until_it_is_said_otherwise() -> None:
    page = parse_config(f"{TILL}[page]\n".encode(), PATH).page
    assert page
    assert (page.listen, page.on_this_machine, page.address) == (PAGE_LISTEN, True, ("127.0.0.1", 8470))


@pytest.mark.parametrize(
    ("listen", "host", "here"),
    (
        ("localhost:1", "localhost", True),
        ("[::1]:8470", "::1", True),
        ("127.9.9.9:80", "127.9.9.9", True),
        ("0.0.0.0:8443", "0.0.0.0", False),
        ("[::]:8443", "::", False),
        ("192.168.1.4:8443", "192.168.1.4", False),
    ),
)
def test_where_a_page_listens(listen: str, host: str, here: bool) -> None:
    page = parse_config(f'{TILL}[page]\nlisten = "{listen}"'.encode(), PATH).page
    assert page
    assert (page.address[0], page.on_this_machine) == (host, here)


def test_file_names_start_where_the_configuration_stands() -> None:
    text = f'{TILL}[page]\nlisten = "0.0.0.0:1"\ncertificate = "a.crt"\nkey = "/b.key"\nnames = ["Till7.Shop"]'
    page = parse_config(text.encode(), PATH).page
    assert page
    assert (page.certificate, page.key, page.names) == ("/etc/tillgate/a.crt", "/b.key", ["till7.shop"])


@pytest.mark.parametrize(
    ("block", "said"),
    (
        ('[page]\nlisten = "8470"', "`listen` is an address and a port"),
        ('[page]\nlisten = "127.0.0.1"', "`listen` is an address and a port"),
        ('[page]\nlisten = "till.shop:8443"', "`listen` is an address and a port"),
        ('[page]\nlisten = "127.0.0.1:99999"', "`listen` is an address and a port"),
        ('[page]\nlisten = "[::1:80"', "`listen` is an address and a port"),
        ('[page]\nlisten = "0.0.0.0:1"\nkey = "k"', "belong together"),
        ('[page]\ncertificate = "c"\nkey = "k"', "this machine only"),
        ('[page]\nlisen = "127.0.0.1:1"', "did you mean `listen`?"),
        ('[page]\nnames = ["kässe"]', "at `$.page.names[0]`"),
        ('[receipt]\nprinter = "lp0"', "`printer` is a device like"),
        ('[receipt]\nprinter = "tcp://:9100"', "`printer` is a device like"),
        ('[receipt]\nprinter = "/dev/usb/lp0"\ncolums = 32', "did you mean `columns`?"),
        ('[receipt]\nprinter = "/dev/usb/lp0"\ncolumns = 40', "columns"),
        ('[[scanners]]\nname = "page"\npath = "/dev/ttyS0"', "`page` is the name of the cashier's page"),
    ),
)
def test_what_is_wrong_is_named(block: str, said: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        parse_config(f"{TILL}{block}".encode(), PATH)
    assert said in str(fault.value)
    assert str(fault.value).startswith(str(PATH))
