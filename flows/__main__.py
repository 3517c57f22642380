"""The entry point of the command `metaopt`: Ctrl-C ends it without a traceback from its very beginning, while it imports."""

import signal


def main() -> None:
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, and stays so
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from flows import cli

    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
