"""`python -m internal.cli` is `stt` without an installation."""

if __name__ == "__main__":
    # imported here because child processes of the engine pool load this file as well
    from internal.cli.app import main

    main()
