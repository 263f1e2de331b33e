"""What tests stand on: private daemons, small images, modules run as Ansible runs them, hosts made of containers."""
