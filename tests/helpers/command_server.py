"""Runs `distail` commands in forks of one process that has imported everything: a start costs no import.

A request is a line of JSON: `arguments`, `cwd`, `environment`, and `out` and `err`, files for what is printed. The
answer is the exit code, or the negative number of the signal.
"""

import os
import sys
import traceback

from distail.cli.app import main


def run_in_fork(request):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        for descriptor, path in ((1, request["out"]), (2, request["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        os.chdir(request["cwd"])
        os.environ.update(request["environment"])
        code = main(request["arguments"])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}  # as the command does before torch
    from forks import serve  # as a program this file has its own folder on the path

    import distail.audit.show
    import distail.cli.show
    import distail.compare.compare
    import distail.report.build
    import distail.runner.plan
    import distail.runner.run  # noqa: F401

    serve(run_in_fork)
