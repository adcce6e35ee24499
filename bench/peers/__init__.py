"""One file per peer under test; `peer.Peer` says what it must do, `../rows.py` lists them."""
