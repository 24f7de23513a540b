FROM scratch
ADD debian.tar /
COPY pip.conf /etc/pip.conf
COPY certificates.crt /etc/stand-in/certificates.crt
COPY apt.conf /etc/apt/apt.conf.d/90stand-in
CMD ["bash"]
