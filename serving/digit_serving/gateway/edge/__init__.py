"""Edge: what a request may cost, bounded before it is paid.

| what | bounded by |
|---|---|
| heads, pipelined requests, unread answers, connections of an address | `http_limits` |
| time and turns of TLS handshakes | `handshakes` |
| bytes of bodies, requests in flight | `admission`, `memory` |
| work of all requests in an iteration of the event loop | `slices` |
| time of decoding, reading and parsing: in these slices, or in a thread | `work` |
| size of a picture, of an expectation, of a list | where each is parsed, in `digit_core` |
"""
