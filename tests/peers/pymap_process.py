"""The process behind `PymapServer`: serves the users its arguments name, prints its port, ends when its stdin does."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Mapping

from proxyprotocol.reader import ProxyProtocolReader
from pymap.backend.dict import DictBackend
from pymap.imap import IMAPServer
from pymap.user import Passwords, UserMetadata


async def serve(users: Mapping[str, str]) -> None:
    """Serve *users*, names and passwords, on a free port of loopback until standard input ends."""
    name, password = next(iter(users.items()))
    arguments = Namespace(
        host="127.0.0.1",
        port=0,
        debug=False,
        cert=None,
        key=None,
        tls=False,
        passlib_cfg=None,
        proxy_protocol=None,
        demo_data=False,
        demo_user=name,
        demo_password=password,
    )
    backend, config = await DictBackend.init(arguments, invalid_user_sleep=0, secure_auth=False)
    config.apply_context()
    for name, password in users.items():
        hashed = await Passwords(config).hash_password(password)
        backend.login.users_dict[name] = UserMetadata(config, name, password=hashed)
    accept = ProxyProtocolReader(config.proxy_protocol).get_callback(IMAPServer(backend.login, config))
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))))
