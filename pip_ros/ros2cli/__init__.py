"""In: `ros2 …` command lines. Out: what ros2cli prints, for the commands that the README names."""

from launch._refuse import refuse_beside_genuine

refuse_beside_genuine("ros2cli")
