"""Keep mirrors of IMAP mailboxes seconds behind their servers, and never be silently dead."""

from typing import Final

__version__: Final = "0.1.0"
