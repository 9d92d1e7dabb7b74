"""Threads and processes: one load, one warning, no thread waiting for another's import, one choice for all workers."""

from __future__ import annotations

import pytest

from tests.parts.conftest import Machine

CREATE = "F.create_instance('chat').format('x')"


def test_sixteen_threads_discover_and_load_once(machine: Machine) -> None:
    code = "import os\nopen('count', 'a').write('x')\n" + "from app.endpoints import ChatEndpoint as Once"
    machine.add("once", {"chat": "once:Once"}, {"once.py": code})
    machine.add("other")
    done = machine.run(
        """
        import concurrent.futures as cf, threading
        gate = threading.Barrier(16)

        def work(_):
            gate.wait()
            F.discover_plugins()
            F.create_instance("chat")
            return str(F.list_implementations("chat"))

        with cf.ThreadPoolExecutor(16) as pool:
            print(len(set(pool.map(work, range(16)))))
        """
    )
    assert done.stdout.strip() == "1", done.stderr
    assert (machine.home / "count").read_text() == "x"
    assert done.stderr.count("is claimed by") == 1


def test_a_failing_plugin_is_tried_once_by_sixteen_threads(machine: Machine) -> None:
    machine.add("broken", files={"broken.py": "open('count', 'a').write('x')\nraise ValueError('no')"})
    done = machine.run(
        """
        import concurrent.futures as cf, threading
        gate = threading.Barrier(16)
        F.discover_plugins()

        def work(_):
            gate.wait()
            return F.create_instance("chat").format("x")

        with cf.ThreadPoolExecutor(16) as pool:
            print(set(pool.map(work, range(16))))
        """
    )
    assert done.stdout.strip() == "{'chat x'}"
    assert (machine.home / "count").read_text() == "x"
    assert done.stderr.count("ValueError") == 1


def test_importing_a_plugin_while_others_create_it_does_not_lock_up(machine: Machine) -> None:
    code = """
        import app.probe
        from app.parts import BaseEndpoint, EndpointFactory

        app.probe.importing.set()
        app.probe.wait_until_others_load()

        @EndpointFactory.register("inner")
        class Slow(BaseEndpoint):
            def format(self, text):
                return f"slow {text}"

        EndpointFactory.create_instance("inner")
        """
    machine.write(
        machine.source,
        {
            "app/probe.py": """
                import threading, time
                importing = threading.Event()
                entered = threading.Semaphore(0)

                def wait_until_others_load():
                    for _ in range(8):
                        entered.acquire(timeout=2)
                """
        },
    )
    machine.add("slow", {"chat": "slow:Slow"}, {"slow.py": code})
    done = machine.run(
        """
        import importlib, threading
        import app.probe as probe
        F.discover_plugins()
        answers = []

        def create():
            probe.importing.wait()
            probe.entered.release()
            answers.append(F.create_instance("chat").format("x"))

        threads = [threading.Thread(target=create, daemon=True) for _ in range(8)]
        threads.append(threading.Thread(target=importlib.import_module, args=("slow",), daemon=True))
        for thread in threads: thread.start()
        for thread in threads: thread.join(5)
        print(answers == ["slow x"] * 8, any(t.is_alive() for t in threads))
        """
    )
    assert done.stdout.strip() == "True False", done.stderr


def test_a_plugin_that_asks_for_itself_while_it_is_imported_is_told_so(machine: Machine) -> None:
    code = """
        from app.parts import BaseEndpoint, EndpointFactory
        try:
            EndpointFactory.create_instance("chat")
        except Exception as error:
            print(error)

        class Early(BaseEndpoint):
            def format(self, text):
                return f"early {text}"
        """
    machine.add("early", {"chat": "early:Early"}, {"early.py": code})
    done = machine.run(f"F.discover_plugins()\nprint({CREATE})")
    told, answer = done.stdout.splitlines()
    assert "while its module is being imported" in told
    assert answer == "early x"


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_workers_choose_as_their_parent(machine: Machine, method: str) -> None:
    machine.add("alpha")
    machine.add("beta")
    work = """
        from app.parts import EndpointFactory as F

        def chosen():
            return F.create_instance("chat").format("x"), F.create_instance("late").format("y")
        """
    machine.write(machine.source, {"app/work.py": work})
    done = machine.run(
        f"""
        import multiprocessing as mp, concurrent.futures as cf
        import app.endpoints
        from app.parts import EndpointFactory as F
        from app.work import chosen

        if __name__ == "__main__":
            F.discover_plugins()
            F.use_implementation("chat", "beta:chat")
            F.register_lazy("late", "app.endpoints:ChatEndpoint")
            context = mp.get_context({method!r})
            with cf.ProcessPoolExecutor(1, context, initializer=F.restore, initargs=(F.snapshot(),)) as pool:
                print(pool.submit(chosen).result())
        """,
        prelude="",
    )
    assert done.stdout.strip() == "('Beta x', 'chat y')", done.stderr


def test_a_child_forked_in_the_middle_of_a_load_makes_its_own(machine: Machine) -> None:
    code = """
        import os
        import app.probe
        from app.endpoints import ChatEndpoint as Slow

        if os.getpid() == app.probe.parent:
            app.probe.importing.set()
            app.probe.forked.wait(5)
        """
    probe = "import os, threading\nparent = os.getpid()\nimporting, forked = threading.Event(), threading.Event()\n"
    machine.write(machine.source, {"app/probe.py": probe})
    machine.add("slow", {"chat": "slow:Slow"}, {"slow.py": code})
    machine.add("zebra")
    done = machine.run(
        """
        import os, threading, warnings
        import app.probe as probe
        warnings.simplefilter("ignore")  # of forking with threads: that is the hazard
        F.discover_plugins()
        loading = threading.Thread(target=F.create_instance, args=("chat",))
        loading.start()
        probe.importing.wait()
        if (child := os.fork()) == 0:
            F.use_implementation("chat", "zebra:chat")
            os.write(1, F.create_instance("chat").format("x").encode())
            os._exit(0)
        probe.forked.set()
        loading.join()
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert (done.stdout, done.returncode) == ("Zebra x", 0), done.stderr
