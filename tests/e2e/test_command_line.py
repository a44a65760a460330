"""What tells of the command line and of the configuration besides the program: completions in the
shells that they are for, and manual pages.
"""
import contextlib
import os
import pty
import re
import select
import shutil
import tempfile
import time
import unittest

import natives
from lab import run

KEYS_OF = re.compile(r"""(?:Section\s\w+\([^;{]*|\.Sub\(\s*"\w+",)\s*\{([^}]*)\}""")


def built(name):
    return os.path.join(natives.BUILD, "etc", name)


def commands(path=()):
    """Every command that --help tells of, as a tuple of words."""
    yield path
    text = run(natives.braid(), *path, "--help").stdout
    listed = re.search(r"(?m)^Subcommands:\n((?:  .*\n)+)", text)
    for name in re.findall(r"(?m)^  (\S+)", listed[1] if listed else ""):
        yield from commands((*path, name))


class Completions(unittest.TestCase):
    beside_others = True

    def bash(self, line):
        script = r"""
            source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            compopt() { :; }
            _braid
            printf '%s\n' "${COMPREPLY[@]}" """
        return run("bash", "-c", script, "-", built("braid"), *line.split(" ")).stdout.split()

    def fish(self, line):
        script = 'source $argv[1]; complete --do-complete $argv[2]'
        done = run("fish", "--no-config", "-c", script, built("braid.fish"), line,
                   env={**os.environ, "HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent"})
        return [text.partition("\t")[0] for text in done.stdout.splitlines()]

    def test_bash(self):
        self.assertEqual(self.bash("braid path a"), ["add"])
        self.assertEqual(self.bash("braid tune --only p"), ["power"])
        self.assertEqual(self.bash("braid mode str"), ["stripe"])
        self.assertEqual(self.bash("braid status --so"), ["--socket"])
        self.assertEqual(self.bash("braid run --config /etc/host.c"), ["/etc/host.conf"])

    def test_fish(self):
        self.assertEqual(self.fish("braid path a"), ["add"])
        self.assertEqual(self.fish("braid tune --only p"), ["power"])
        self.assertEqual(self.fish("braid mode str"), ["stripe"])
        self.assertEqual(self.fish("braid status --so"), ["--socket"])
        self.assertIn("/etc/host.conf", self.fish("braid run --config /etc/host.c"))

    def test_every_command_in_bash_and_fish(self):
        for path in commands():
            name = " ".join(path)
            wanted = set(re.findall(r"(?m)^  (?:-\w,)?(--[\w-]+)",
                                    run(natives.braid(), *path, "--help").stdout))
            line = f"braid {name} --" if path else "braid --"
            self.assertEqual({word for word in self.bash(line) if word.startswith("--")}
                             & wanted, wanted, f"bash: {line}")
            self.assertEqual(set(self.fish(line)) & wanted, wanted, f"fish: {line}")

    def test_zsh(self):
        with Zsh() as zsh:
            self.assertEqual(zsh.complete("braid path a"), "braid path add ")
            self.assertEqual(zsh.complete("braid tune --only po"), "braid tune --only power ")
            self.assertEqual(zsh.complete("braid mode str"), "braid mode stripe ")
            self.assertEqual(zsh.complete("braid status --so"), "braid status --socket ")
            self.assertEqual(zsh.complete("braid run --config /etc/host.c"),
                             "braid run --config /etc/host.conf ")
            self.assertEqual(zsh.complete("braid kill-switch loa"), "braid kill-switch load ")


class Zsh:
    """An interactive one: completion works in no other."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="braid-zsh-")
        shutil.copy(built("_braid"), self.folder)
        with open(os.path.join(self.folder, ".zshrc"), "w", encoding="ascii") as file:
            # The line as it stands is written to a file of its own, by a key.
            file.write("""
                fpath=($ZDOTDIR $fpath)
                autoload -Uz compinit && compinit -u -D
                tell() { print -rn -- "$BUFFER" > $ZDOTDIR/line.new
                         mv $ZDOTDIR/line.new $ZDOTDIR/line; BUFFER= }
                zle -N tell
                bindkey '^X' tell
                bindkey '^I' complete-word
                touch $ZDOTDIR/ready
                """)
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "ZDOTDIR": self.folder,
                                              "TERM": "dumb", "HOME": self.folder})
        self._wait("ready")
        return self

    def __exit__(self, *_):
        os.close(self.terminal)
        os.waitpid(self.pid, 0)
        shutil.rmtree(self.folder)

    def complete(self, line):
        os.write(self.terminal, line.encode() + b"\t\x18")
        return self._wait("line")

    def _wait(self, name, seconds=20):
        path = os.path.join(self.folder, name)
        end = time.monotonic() + seconds
        said = b""
        while not os.path.exists(path):
            if time.monotonic() > end:
                raise AssertionError(f"zsh does not answer: {said.decode(errors='replace')}")
            if select.select([self.terminal], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    said += os.read(self.terminal, 4096)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        os.remove(path)
        return text


class Manuals(unittest.TestCase):
    beside_others = True
    PAGES = (built("braid.1"), os.path.join(natives.ROOT, "etc/man/braid.conf.5"))

    def test_well_formed(self):
        for page in self.PAGES:
            told = run("mandoc", "-T", "lint", "-W", "warning", page, check=False)
            self.assertEqual((told.returncode, told.stdout), (0, ""))

    def test_every_command_and_option_is_described(self):
        text = self.shown(self.PAGES[0])
        for path in commands():
            for option in re.findall(r"(?m)^  (?:-\w,)?(--[\w-]+)",
                                     run(natives.braid(), *path, "--help").stdout):
                self.assertIn(option, text)
            self.assertIn(" ".join(("braid", *path)), text)

    def test_every_key_of_the_configuration_is_described(self):
        keys = set()
        folder = os.path.join(natives.ROOT, "src/slowpath")
        for name in os.listdir(folder):
            if re.fullmatch(r"config\w*\.cc", name):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    for listed in KEYS_OF.findall(file.read()):
                        keys.update(re.findall(r'"(\w+)"', listed))
        self.assertLess(40, len(keys), "the keys are found in the sources")
        with open(self.PAGES[1], encoding="utf-8") as file:
            described = set(re.findall(r"\w+", " ".join(
                re.findall(r"(?m)^(?:\.It )?\.?Cm (.*)", file.read()))))
        self.assertEqual(keys - described, set(), "are not in etc/man/braid.conf.5")

    @staticmethod
    def shown(page):
        text = run("mandoc", "-T", "ascii", page).stdout
        return re.sub(r".\x08", "", text)
