"""Do zeros survive? Small networks with zeros, trained in every way that mmengine offers."""
