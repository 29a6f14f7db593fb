// Takes commands from a Unix socket, a line each, and gives a line in answer to each. One thread.
#pragma once

#include <functional>
#include <map>
#include <string>

namespace wan {

class ControlSocket {
 public:
  using Obey = std::function<std::string(const std::string&)>;
  // Throws std::runtime_error. Whatever was at `path` is replaced.
  ControlSocket(const std::string& path, int epoll, Obey obey);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  [[nodiscard]] bool owns(int fd) const { return fd == listener_ || callers_.contains(fd); }
  void on_ready(int fd);

 private:
  // A caller that says more without a line's end is not one of ours.
  static constexpr std::size_t kMostLine = 4'096;

  void greet();
  bool listen_to(int fd);

  std::string path_;
  int epoll_;
  int listener_ = -1;
  Obey obey_;
  std::map<int, std::string> callers_;  // and what each has said of a line
};

}  // namespace wan
