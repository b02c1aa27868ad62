"""Monitoring: samples, metrics and expectations, from the tables and views of the warehouse."""
