"""`python -m anydepth_perception.tools.demo`."""

from anydepth_perception.tools.demo import main

if __name__ == "__main__":
    main()
