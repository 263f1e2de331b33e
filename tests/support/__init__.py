"""What the tests stand on: private daemons, small images, modules run as Ansible runs them, and hosts made of containers."""
