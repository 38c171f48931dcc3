"""Keep mirrors of IMAP mailboxes seconds behind their servers, and never be silently dead."""
