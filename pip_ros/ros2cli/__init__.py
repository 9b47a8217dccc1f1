"""In: `ros2 …` command lines. Out: their output, for the commands that a README of this size needs. Uses rclpy alone."""
from launch._refuse import refuse_beside_genuine

refuse_beside_genuine("ros2cli")
