"""Writes one rule more into a hospital's mapping file, and leaves the rest of it as it is.

A file that a person keeps has comments, and an order. So it is not written anew: a line is put
behind its last rule.
"""

import os
from pathlib import Path

import yaml

from meaning.rules import parse
from passport.errors import Fatal


def add_rule(file: Path, line: str, comment: str) -> None:
    """Put a rule, as `meaning.suggest.rule_line` returns it, behind the last one of the file.

    The file is replaced as a whole or not at all. Raises Fatal if it can't be read or written, or
    has no place for a rule.
    """
    try:
        text = with_rule(file.read_text(encoding="utf-8"), line, comment)
        # Beside it, so that it is on the same file system: then the replacement is atomic.
        new = file.with_name(f"{file.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(file)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise Fatal(
            f"{file} can't be written: {reason}", hint=f"is it there? echo 'version: 2' > {file}"
        ) from None
    except (ValueError, yaml.YAMLError):
        raise Fatal(
            f"{file} has no place for a rule",
            hint=f"it needs version: 2, and each of its rules on lines of their own: add {line}",
        ) from None


def with_rule(text: str, line: str, comment: str) -> str:
    """Return the text of a mapping file of version 2 with one rule more.

    Raises ValueError or YAMLError if it is none, or if its rules are not written line by line.
    """
    # A name of the dictionary may have line ends, or characters that YAML doesn't allow.
    comment = "".join(one for one in " ".join(comment.split()) if one.isprintable())
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("not a mapping")
    lines = text.splitlines()
    rules = next((value for key, value in root.value if key.value == "rules"), None)
    if rules is None:
        lines += ["rules:", f"  {line} # {comment}"]
    else:
        if not isinstance(rules, yaml.SequenceNode) or rules.flow_style or not rules.value:
            raise ValueError("not a list with lines of its own")
        last = rules.value[-1].end_mark
        # The end of a block is where the next token begins; comments in between stay behind it.
        end = last.line + 1 if last.column else last.line
        while end > 0 and _is_empty(lines[end - 1]):
            end -= 1
        indent = " " * rules.start_mark.column
        lines.insert(end, f"{indent}{line} # {comment}")
    longer = "\n".join(lines) + "\n"
    before = len(parse(yaml.safe_load(text)).rules)
    after = parse(yaml.safe_load(longer)).rules
    if len(after) != before + 1:
        raise ValueError("the rule is not read as one")
    return longer


def _is_empty(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")
