"""What every command's parser has: a description, an example and a handler."""

import argparse


def add_command(commands, name: str, help_text: str, example: str, handler) -> argparse.ArgumentParser:
    """Add a command, and return its parser."""
    parser = commands.add_parser(
        name,
        help=help_text,
        description=help_text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=handler)
    return parser
