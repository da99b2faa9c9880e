"""`python -m anydepth_perception.tools.bench`."""

from anydepth_perception.tools.bench import main

if __name__ == "__main__":
    main()
