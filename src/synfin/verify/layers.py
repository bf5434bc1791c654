"""Layers by tshark's names: which of them synfin takes apart."""

from __future__ import annotations

DECODED = {
    "eth", "ethertype", "llc", "vlan", "ieee8021ad", "sll", "null", "raw", "ppp", "chdlc", "pppoes", "mpls", "pwethcw", "cfp",
    "ip", "ipv6", "ah", "ipv6.hopopts", "ipv6.routing", "ipv6.dstopts", "ipv6.fraghdr", "ipv6.shim6", "ipv6.mobility",
    "gre", "erspan", "udp", "vxlan", "geneve", "gtp", "wlan", "radiotap", "wlan_radio", "ppi",
}  # fmt: skip


def undecoded(layers: str) -> set[str]:
    """Of a packet's layers, with colons between them, those that synfin does not take apart."""
    return set(layers.split(":")) - DECODED
