#include "control_socket.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace wan {

namespace {

void watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

ControlSocket::ControlSocket(const std::string& path, int epoll, Obey obey)
    : path_(path), epoll_(epoll), obey_(std::move(obey)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    throw std::runtime_error("a control socket's path has 1 to 107 bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  ::unlink(path.c_str());
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener_ < 0 ||
      ::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 8) != 0) {
    const std::string why = std::strerror(errno);
    ::close(listener_);
    throw std::runtime_error("cannot listen at " + path + ": " + why);
  }
  watch(epoll_, listener_);
}

ControlSocket::~ControlSocket() {
  for (const auto& [fd, said] : callers_) ::close(fd);
  ::close(listener_);
  ::unlink(path_.c_str());
}

void ControlSocket::on_ready(int fd) {
  if (fd == listener_) {
    greet();
  } else if (!listen_to(fd)) {
    callers_.erase(fd);
    ::close(fd);
  }
}

void ControlSocket::greet() {
  const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  callers_[fd];
  watch(epoll_, fd);
}

bool ControlSocket::listen_to(int fd) {
  std::string& said = callers_.at(fd);
  char bytes[1'024];
  const ssize_t got = ::recv(fd, bytes, sizeof bytes, 0);
  if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
  said.append(bytes, static_cast<std::size_t>(got));
  for (std::size_t end = 0; (end = said.find('\n')) != said.npos; said.erase(0, end + 1)) {
    const std::string answer = obey_(said.substr(0, end)) + "\n";
    if (::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(answer.size()))
      return false;
  }
  return said.size() <= kMostLine;
}

}  // namespace wan
