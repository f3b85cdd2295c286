"""Read images and videos, and write video while it is made. Both stream: few frames are in memory."""
