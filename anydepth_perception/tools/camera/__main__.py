"""`python -m anydepth_perception.tools.camera`."""

from anydepth_perception.tools.camera import main

if __name__ == "__main__":
    main()
