"""A home router that speaks UPnP on loopback: SSDP to be found by, SOAP to be asked by."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

from protocol.errors import SwarmError

GROUP = "239.255.255.250"
PORT = 1900
LOOPBACK = "127.0.0.1"
_DEVICE = "urn:schemas-upnp-org:device:"
_SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
_NAMES = "<friendlyName>x</friendlyName><manufacturer>x</manufacturer><modelName>x</modelName>"
_DESCRIPTION = f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">
<specVersion><major>1</major><minor>0</minor></specVersion><device>
<deviceType>{_DEVICE}InternetGatewayDevice:1</deviceType>{_NAMES}<UDN>uuid:1</UDN>
<deviceList><device><deviceType>{_DEVICE}WANDevice:1</deviceType>{_NAMES}<UDN>uuid:2</UDN>
<deviceList><device><deviceType>{_DEVICE}WANConnectionDevice:1</deviceType>{_NAMES}
<UDN>uuid:3</UDN><serviceList><service><serviceType>{_SERVICE}</serviceType>
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><SCPDURL>/scpd</SCPDURL>
<controlURL>/control</controlURL><eventSubURL>/events</eventSubURL></service></serviceList>
</device></deviceList></device></deviceList></device></root>"""


class Router:
    """What the router knows, and how it behaves.

    Attributes:
        address: its external address, as it says.
        leases: whether it knows any but permanent ones.
        others: ports mapped to other machines.
        mappings: by external port: internal host, internal port, lease in seconds.
    """

    def __init__(self) -> None:
        self.address = "8.8.4.4"
        self.leases = True
        self.others: set[int] = set()
        self.mappings: dict[int, tuple[str, int, int]] = {}

    def asked(self, action: str, said: dict[str, str]) -> str:
        """The answer to an action, as XML. Raises Fault."""
        if action == "GetExternalIPAddress":
            return f"<NewExternalIPAddress>{self.address}</NewExternalIPAddress>"
        if action == "GetStatusInfo":
            return (
                "<NewConnectionStatus>Connected</NewConnectionStatus>"
                "<NewLastConnectionError></NewLastConnectionError><NewUptime>9</NewUptime>"
            )
        external = int(said["NewExternalPort"])
        assert said["NewProtocol"] == "TCP"
        if action == "DeletePortMapping":
            if self.mappings.pop(external, None) is None:
                raise Fault(714, "NoSuchEntryInArray")
        else:
            assert action == "AddPortMapping"
            lease = int(said["NewLeaseDuration"])
            if lease and not self.leases:
                raise Fault(725, "OnlyPermanentLeasesSupported")
            if external in self.others:
                raise Fault(718, "ConflictInMappingEntry")
            to = said["NewInternalClient"], int(said["NewInternalPort"])
            self.mappings[external] = (*to, lease)
        return ""


class Fault(SwarmError):
    """The router refuses."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


@contextlib.contextmanager
def serving(router: Router) -> Iterator[None]:
    """Have ``router`` be found and asked on loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._say(200, _DESCRIPTION)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = self.headers["SOAPAction"].partition("#")[2].strip('"')
            said = dict(re.findall(r"<(New\w+)>([^<]*)<", body))
            try:
                inner, status = router.asked(action, said), 200
                inner = f'<u:{action}Response xmlns:u="{_SERVICE}">{inner}</u:{action}Response>'
            except Fault as fault:
                status = 500
                inner = (
                    "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>"
                    '<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
                    f"<errorCode>{fault.number}</errorCode><errorDescription>{fault}"
                    "</errorDescription></UPnPError></detail></s:Fault>"
                )
            soap = "http://schemas.xmlsoap.org/soap/envelope/"
            self._say(
                status,
                f'<?xml version="1.0"?><s:Envelope xmlns:s="{soap}"><s:Body>{inner}</s:Body>'
                "</s:Envelope>",
            )

        def _say(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = http.server.HTTPServer((LOOPBACK, 0), Handler)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((GROUP, PORT))
    group = socket.inet_aton(GROUP) + socket.inet_aton(LOOPBACK)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)

    def answer() -> None:
        while True:
            data, asker = sock.recvfrom(2048)
            if data == b"end":
                return
            sought = re.search(rb"\r\nST: *(\S+)", data)
            if sought is not None and b"InternetGatewayDevice:1" in sought[1]:
                where = f"http://{LOOPBACK}:{server.server_port}/".encode()
                reply = b"\r\n".join(
                    (b"HTTP/1.1 200 OK", b"ST: " + sought[1], b"USN: uuid:1", b"LOCATION: " + where)
                )
                sock.sendto(reply + b"\r\n\r\n", asker)

    threads = [threading.Thread(target=work) for work in (server.serve_forever, answer)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        server.shutdown()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            last.sendto(b"end", (GROUP, PORT))
        for thread in threads:
            thread.join()
        server.server_close()
        sock.close()
