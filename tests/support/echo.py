"""A worker process for tests: says what it hears, or fails as it is told."""

import os
import sys
import time

from wamrl.runtime.processes import serve


class Echo:
    def say(self, *words: object) -> tuple:
        return words

    def environment(self) -> tuple[list[str], dict[str, str]]:
        return sys.path, dict(os.environ)

    def complain(self) -> None:
        raise ValueError("nothing to say: ask something else")

    def fail(self) -> None:
        raise KeyError("joint7")

    def die(self) -> None:
        os._exit(7)

    def hang(self) -> None:
        time.sleep(1000)

    def close(self) -> None:
        print("closed", flush=True)


if __name__ == "__main__":
    serve(Echo())
